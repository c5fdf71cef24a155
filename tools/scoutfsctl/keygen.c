/*
 * `scoutfsctl keygen`: this node's key pair.  design.md D10.
 *
 * Standard output is only the line that belongs into the list of allowed nodes, so that it can be
 * appended to the list or sent through ssh as it is; what to do with it is said on standard error.
 */
#include <ctype.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "keys.h"
#include "tools/scoutfsctl/commands.h"

#define ADDRESSES_MAX 16

/* A word of the line that the list's reader takes for nothing else. */
static bool is_name(const char *name)
{
	if (!*name || *name == '#' || strlen(name) >= KEYS_NAME_BYTES)
		return false;
	for (const char *p = name; *p; p++) {
		if (!isalnum((unsigned char)*p) && !strchr("-_.", *p))
			return false;
	}
	return strspn(name, "0123456789.") != strlen(name);
}

static void print_line(const uint8_t key[KEYS_BYTES], char *const addresses[], unsigned addresses_nr,
		       const char *name)
{
	char text[KEYS_TEXT_BYTES];

	keys_to_text(key, text);
	printf("%s", text);
	for (unsigned i = 0; i < addresses_nr; i++)
		printf(" %s", addresses[i]);
	printf(" %s\n", name);
}

int cmd_keygen(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "force", no_argument, NULL, 'f' },
		{ "public", no_argument, NULL, 'p' },
		{ NULL, 0, NULL, 0 },
	};
	bool is_forced = false, is_public = false;
	char host[KEYS_NAME_BYTES], err[KEYS_ERR_BYTES];
	const char *file, *name = NULL;
	char *addresses[ADDRESSES_MAX];
	unsigned addresses_nr = 0;
	uint8_t key[KEYS_BYTES];
	uint32_t addr;
	uint16_t port;
	int opt, ret;

	while ((opt = getopt_long(argc, argv, ":fpa:n:", longopts, NULL)) != -1) {
		if (opt == 'f') {
			is_forced = true;
		} else if (opt == 'p') {
			is_public = true;
		} else if (opt == 'a') {
			if (keys_parse_address(optarg, &addr, &port) < 0)
				return usage_error("keygen", "'%s' is not an address: give A.B.C.D or "
						   "A.B.C.D:PORT", optarg);
			if (addresses_nr == ADDRESSES_MAX)
				return usage_error("keygen", "more than %d addresses", ADDRESSES_MAX);
			addresses[addresses_nr++] = optarg;
		} else if (opt == 'n') {
			name = optarg;
		} else if (opt == ':') {
			return usage_error("keygen", "option '-%c' needs a value", optopt);
		} else {
			return unknown_option("keygen", argv);
		}
	}
	if (argc - optind > 1)
		return usage_error("keygen", "name one file, or none for " KEYS_FILE);
	if (is_forced && is_public)
		return usage_error("keygen", "-p makes nothing, so -f does not go with it");
	if (name && !is_name(name))
		return usage_error("keygen", "'%s' is not a name: give up to %u letters, digits, - _ . that are "
				   "no address", name, KEYS_NAME_BYTES - 1);
	if (!name) {
		if (gethostname(host, sizeof(host)) < 0 || !memchr(host, 0, sizeof(host)) || !is_name(host))
			strcpy(host, "node");
		name = host;
	}
	file = argv[optind] ? argv[optind] : KEYS_FILE;
	ret = is_public ? keys_file_read(file, key, NULL, err, sizeof(err)) :
			  keys_file_make(file, is_forced, key, err, sizeof(err));
	if (ret < 0) {
		say_error("keygen", "%s", err);
		return 1;
	}
	if (!is_public)
		fprintf(stderr, "made %s; this line goes into " KEYS_ALLOW_FILE " of every node (then: "
			"systemctl reload scoutfs@NAME)%s:\n", file,
			addresses_nr ? "" : "; a node with a quorum slot needs its address in it (-a)");
	print_line(key, addresses, addresses_nr, name);
	return 0;
}
