/* What a service's status says of its keys. */
#include "keys.h"

#include "ctl.h"

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
