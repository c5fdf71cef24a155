/*
 * lincheck DIR: the logs DIR/lin.NODE.INCARNATION.PROCESS that linwork has written, with the
 * losses of mounts and failures of devices in DIR/events.  Says what no order explains; the last line is "ops N ...
 * undecided N wrong N".  Exit status 1 if something is wrong.
 */
#include "lin.h"

#include <glob.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	struct lin_history h = { 0 };
	struct lin_stats st;
	char path[4096];
	size_t wrong = 0;
	glob_t g;
	FILE *f;

	if (argc != 2) {
		fprintf(stderr, "usage: lincheck DIR\n");
		return 2;
	}
	snprintf(path, sizeof(path), "%s/lin.*", argv[1]);
	if (glob(path, 0, NULL, &g)) {
		fprintf(stderr, "lincheck: there are no logs %s\n", path);
		return 2;
	}
	for (size_t i = 0; i < g.gl_pathc; i++) {
		int node, inc, proc;

		f = fopen(g.gl_pathv[i], "r");
		if (!f || sscanf(strrchr(g.gl_pathv[i], '/'), "/lin.%d.%d.%d", &node, &inc, &proc) != 3) {
			fprintf(stderr, "lincheck: %s: not a log, or unreadable\n", g.gl_pathv[i]);
			return 2;
		}
		if (lin_read_log(&h, f, node, inc, proc, stdout))
			return 2;
		fclose(f);
	}
	globfree(&g);
	snprintf(path, sizeof(path), "%s/events", argv[1]);
	f = fopen(path, "r");
	if (f && lin_read_events(&h, f, stdout))
		return 2;
	if (f)
		fclose(f);
	wrong = lin_check(&h, &st, stdout);
	if (st.errors)
		printf("%s of n%d/%d/%d on object %d at %llu: %s\n", lin_kind_names[st.first_error.kind],
		       st.first_error.node, st.first_error.inc, st.first_error.proc, st.first_error.obj,
		       (unsigned long long)st.first_error.start, strerror(st.first_error.err));
	printf("ops %zu objects %zu worst_ms %llu worst_op %s", st.ops, st.objects,
	       (unsigned long long)(st.worst_ns / 1000000), lin_kind_names[st.worst_kind]);
	for (int i = 0; i < LIN_NODES; i++) {
		if (st.node_worst_ns[i])
			printf(" worst_n%d %llu", i, (unsigned long long)(st.node_worst_ns[i] / 1000000));
	}
	printf(" overlapped %zu configs %zu unanswered %zu errors %zu device_errors %zu lost_unanswered %zu lost_errors %zu undecided %zu wrong %zu\n",
	       st.overlapped, st.configs_max, st.unanswered, st.errors, st.device_errors, st.lost_unanswered,
	       st.lost_errors, st.undecided, wrong);
	lin_history_fini(&h);
	return wrong != 0;
}
