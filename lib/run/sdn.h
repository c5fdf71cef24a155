/* What a service tells systemd (sd_notify): nothing happens, and nothing fails, without
 * NOTIFY_SOCKET. */
#ifndef SCOUTFS_SDN_H
#define SCOUTFS_SDN_H

#include <stdint.h>

/* The service does its work from now on. */
void sdn_ready(void);
/* The orderly stop has begun. */
void sdn_stopping(void);
/* The STATUS= line of `systemctl status`, in words; sent only when it differs from the last one. */
void sdn_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* How often sdn_watchdog() must be called at the latest, half of WatchdogSec=; 0: nobody watches.
 */
uint64_t sdn_watchdog_ns(void);
/* The service is alive; call it from the main loop, where a hang would show. */
void sdn_watchdog(void);

#endif
