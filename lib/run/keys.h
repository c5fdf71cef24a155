/*
 * This node's key pair and the list of the nodes that may talk to it.  design.md D10.
 *
 * The key file holds one secret Curve25519 key; the list has a line for each node:
 *
 *	PUBLIC-KEY [ADDRESS[:PORT]]... [NAME]...	# comment
 *
 * A key is 40 characters of Z85 (ZeroMQ RFC 32).  The addresses are those at which the node's quorum
 * slots listen, so that others know what key to expect there; who never leads needs none.
 */
#ifndef SCOUTFS_KEYS_H
#define SCOUTFS_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf.h"
#include "msg.h"

#define KEYS_FILE		CONF_DIR "/node.key"
#define KEYS_ALLOW_FILE		CONF_DIR "/nodes.allow"
#define KEYS_BYTES		32u
#define KEYS_TEXT_BYTES		41u	/* with its end */
#define KEYS_NAME_BYTES		64u
#define KEYS_NODES_MAX		4096u
#define KEYS_ERR_BYTES		1536	/* of messages here: they name files */

struct keys;

/*
 * What conf wants: *out is NULL with 0 when this instance talks without keys (insecure = yes, or no
 * key_file is named and there is no KEYS_FILE).  The caller ends it with keys_close.  On an error err
 * names the file, the reason and what to do: -EINVAL for what it says, -EPERM for who may read or
 * change it, else what reading it failed with.
 */
int keys_open(struct keys **out, const struct instance_conf *conf, char *err, size_t err_size);
void keys_close(struct keys *k);

/* Read the list again (any thread); on an error, as of keys_open, the old one stays. */
int keys_reload(struct keys *k, char *err, size_t err_size);

/* This node's own; valid as long as k is. */
const uint8_t *keys_public(const struct keys *k);
const uint8_t *keys_secret(const struct keys *k);
/* The list's file, for messages, and how many nodes are in it (any thread). */
const char *keys_allow_path(const struct keys *k);
unsigned keys_nodes_nr(struct keys *k);

/* Whether that key's holder may talk to this node: it is in the list, or it is this node (any thread). */
bool keys_allows(struct keys *k, const uint8_t key[KEYS_BYTES]);
/*
 * The key of the node that listens there (any thread); a loopback address that no line has is this
 * node.  -ENOENT: no line of the list has it.
 */
int keys_at_address(struct keys *k, uint32_t addr, uint16_t port, uint8_t key[KEYS_BYTES]);

/* At its own address a service must be the node that others expect there: 0, or -ENOKEY with the
 * reason and what to do in err. */
int keys_check_own(struct keys *k, uint32_t addr, uint16_t port, char *err, size_t err_size);
/* keys_open and keys_reload with the reason in the log; the second: whether there is a new list. */
int keys_open_said(struct keys **out, const struct instance_conf *conf);
bool keys_reload_said(struct keys *k);
/* The texts "key" or "insecure" of a status: whether this service asks who talks to it. */
void keys_status(struct keys *k, const struct instance_conf *conf, struct msg_status_reply *reply);

/*
 * Write a new pair's file, readable by root and the user scoutfs only: whole or not at all, and never in
 * the place of another unless `replace`.  -EEXIST and others, said in err.
 */
int keys_file_make(const char *path, bool replace, uint8_t public_key[KEYS_BYTES], char *err,
		   size_t err_size);
/* Read such a file; err as for keys_open.  secret may be NULL. */
int keys_file_read(const char *path, uint8_t public_key[KEYS_BYTES], uint8_t secret[KEYS_BYTES],
		   char *err, size_t err_size);

/* Z85: text of 40 characters and its end.  -EINVAL: not the text of a key. */
void keys_to_text(const uint8_t key[KEYS_BYTES], char text[KEYS_TEXT_BYTES]);
int keys_from_text(const char *text, size_t len, uint8_t key[KEYS_BYTES]);

/* "A.B.C.D" or "A.B.C.D:PORT" (else *port is 0).  -EINVAL. */
int keys_parse_address(const char *text, uint32_t *addr, uint16_t *port);

#endif
