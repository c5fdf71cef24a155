/* Keys as all services use them: what is wrong goes to the log, how they are to the status. */
#include "keys.h"

#include "ctl.h"
#include "log.h"

int keys_open_said(struct keys **out, const struct instance_conf *conf)
{
	char err[KEYS_ERR_BYTES];
	int ret = keys_open(out, conf, err, sizeof(err));

	if (ret < 0)
		log_err("%s", err);
	return ret;
}

bool keys_reload_said(struct keys *k)
{
	char err[KEYS_ERR_BYTES];

	if (!k)
		return false;
	if (keys_reload(k, err, sizeof(err)) < 0) {
		log_err("%s; the list of before is used on", err);
		return false;
	}
	log_info("%s: read again, %u nodes", keys_allow_path(k), keys_nodes_nr(k));
	return true;
}

void keys_status(struct keys *k, const struct instance_conf *conf, struct msg_status_reply *reply)
{
	char text[KEYS_TEXT_BYTES];

	if (k) {
		keys_to_text(keys_public(k), text);
		ctl_add_text(reply, "key", "%s; %u nodes in %s", text, keys_nodes_nr(k), keys_allow_path(k));
	} else if (conf->insecure) {
		ctl_add_text(reply, "insecure", "yes: everybody on the network may talk to this service");
	}
}
