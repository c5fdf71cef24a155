/*
 * Devices of small blocks: every I/O takes its time, some take very long, some fail, and what was
 * under way when the host lost power is lost, whole, or torn between sectors.
 *
 * A device may also answer with what a block was before.  A write is durable when it lands: whoever models a volatile cache writes again what was not flushed.
 * A write that was answered with an error may have landed all the same.
 */
#include "sim_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define SECTOR	512u

struct sim_io {
	struct sim_io *next;
	struct sim_disk *disk;
	unsigned proc;
	bool is_write, is_over, is_old;
	int result;
	bool lands;
	uint64_t life;
	uint64_t blkno;
	void *buf;			/* a reader's, or data */
	void *data;			/* of a write; it stays when this one is used again */
	sim_call_fn *done;
	void *arg;
};

struct sim_disk {
	const char *name;
	uint64_t nr;
	size_t block_size;
	uint8_t *data, *old;		/* old: each block before its last change */
	struct sim_io *under_way, *free;
};

struct sim_disk *sim_disk_new(struct sim *s, const char *name, uint64_t nr, size_t block_size)
{
	struct sim_disk *d = sim_alloc(s, sizeof(*d));

	assert(block_size % SECTOR == 0);
	*d = (struct sim_disk){ .name = name, .nr = nr, .block_size = block_size };
	d->data = sim_alloc(s, nr * block_size);
	d->old = sim_alloc(s, nr * block_size);
	return d;
}

const void *sim_disk_block(const struct sim_disk *d, uint64_t blkno)
{
	assert(blkno < d->nr);
	return d->data + blkno * d->block_size;
}

void sim_disk_format(struct sim_disk *d, uint64_t blkno, const void *buf)
{
	assert(blkno < d->nr);
	memcpy(d->data + blkno * d->block_size, buf, d->block_size);
}

/* It goes back when its event has come, not before. */
static struct sim_io *io_new(struct sim *s, const struct sim_io *of)
{
	struct sim_io *io = of->disk->free;
	void *data;

	if (io)
		of->disk->free = io->next;
	else
		io = sim_alloc(s, sizeof(*io));
	data = io->data;
	*io = *of;
	io->data = data;
	return io;
}

static void io_free(struct sim_io *io)
{
	io->next = io->disk->free;
	io->disk->free = io;
}

static void unlink_io(struct sim_io *io)
{
	struct sim_io **p = &io->disk->under_way;

	while (*p != io)
		p = &(*p)->next;
	*p = io->next;
	io->is_over = true;
}

static void land(struct sim *s, struct sim_io *io)
{
	uint8_t *to = io->disk->data + io->blkno * io->disk->block_size;

	memcpy(io->disk->old + io->blkno * io->disk->block_size, to, io->disk->block_size);
	memcpy(to, io->buf, io->disk->block_size);
	sim_trace(s, io->proc, "%s: block %llu lands", io->disk->name, (unsigned long long)io->blkno);
	sim_publish(s, &(struct sim_fact){ .kind = SIM_FACT_LANDED,
					   .proc = io->proc,
					   .v = { io->blkno },
					   .buf = to,
					   .len = io->disk->block_size,
					   .disk = io->disk });
}

static void finish(struct sim *s, struct sim_io *io)
{
	if (!io->is_write)
		memcpy(io->buf, (io->is_old ? io->disk->old : io->disk->data) +
				io->blkno * io->disk->block_size, io->disk->block_size);
	else if (io->lands)
		land(s, io);
	if (io->result)
		sim_trace(s, io->proc, "%s: I/O error, block %llu", io->disk->name,
			  (unsigned long long)io->blkno);
	/* To the life that asked. */
	if (io->done && s->procs[io->proc].is_alive && s->procs[io->proc].life == io->life)
		sim_call_proc(s, io->proc, sim_rnd(s, s->faults.io_min_ns + 1), io->done, io->arg,
			      (uint64_t)io->result);
}

static void io_ends(struct sim *s, void *arg, uint64_t value)
{
	struct sim_io *io = arg;

	(void)value;
	if (io->is_over) {
		io_free(io);
		return;
	}
	if (s->stall_until_ns[io->proc] > s->now_ns) {
		sim_call_at(s, s->stall_until_ns[io->proc], io_ends, io, 0);
		return;
	}
	unlink_io(io);
	finish(s, io);
	io_free(io);
}

static void submit(struct sim *s, struct sim_io *io)
{
	const struct sim_faults *f = &s->faults;
	uint64_t after = sim_between(s, f->io_min_ns, f->io_max_ns);

	assert(io->blkno < io->disk->nr);
	if (sim_chance(s, f->stall_pm))
		after = sim_between(s, f->io_max_ns, f->stall_max_ns);
	io->life = s->procs[io->proc].life;
	io->next = io->disk->under_way;
	io->disk->under_way = io;
	sim_call_at(s, s->now_ns + after, io_ends, io, 0);
}

void sim_disk_write(struct sim *s, struct sim_disk *d, unsigned proc, uint64_t blkno,
		    const void *buf, sim_call_fn *done, void *arg)
{
	struct sim_io *io = io_new(s, &(struct sim_io){
		.disk = d, .proc = proc, .is_write = true, .lands = true, .blkno = blkno,
		.done = done, .arg = arg });

	if (!io->data)
		io->data = sim_alloc(s, d->block_size);
	io->buf = io->data;
	memcpy(io->buf, buf, d->block_size);
	if (sim_chance(s, s->faults.write_error_pm)) {
		io->result = EIO;
		io->lands = sim_rnd(s, 2);
	}
	submit(s, io);
}

static void read_block(struct sim *s, const struct sim_io *io)
{
	struct sim_io *p = io_new(s, io);

	if (sim_chance(s, s->faults.read_error_pm))
		p->result = EIO;
	submit(s, p);
}

void sim_disk_read(struct sim *s, struct sim_disk *d, unsigned proc, uint64_t blkno, void *buf,
		   sim_call_fn *done, void *arg)
{
	read_block(s, &(struct sim_io){ .disk = d, .proc = proc, .blkno = blkno, .buf = buf,
				       .done = done, .arg = arg });
}

void sim_disk_read_old(struct sim *s, struct sim_disk *d, unsigned proc, uint64_t blkno, void *buf,
		       sim_call_fn *done, void *arg)
{
	read_block(s, &(struct sim_io){ .disk = d, .proc = proc, .is_old = true, .blkno = blkno,
				       .buf = buf, .done = done, .arg = arg });
}

void sim_disk_drop(struct sim *s, struct sim_disk *d, unsigned proc)
{
	struct sim_io *io, *next;

	for (io = d->under_way; io; io = next) {
		uint8_t *old = d->data + io->blkno * d->block_size;

		next = io->next;
		if (io->proc != proc)
			continue;
		unlink_io(io);
		if (!io->is_write || sim_rnd(s, 3) == 0)
			continue;
		/* Some sectors are new; all of them in half of the cases. */
		for (size_t at = 0, whole = sim_rnd(s, 2); at < d->block_size; at += SECTOR) {
			if (!whole && sim_rnd(s, 2))
				memcpy((uint8_t *)io->buf + at, old + at, SECTOR);
		}
		land(s, io);
	}
}

void sim_disk_drain(struct sim *s, struct sim_disk *d, unsigned proc)
{
	struct sim_io *io, *next;

	for (io = d->under_way; io; io = next) {
		next = io->next;
		if (io->proc != proc)
			continue;
		unlink_io(io);
		finish(s, io);
	}
}

bool sim_disk_is_busy(const struct sim_disk *d, unsigned proc)
{
	for (const struct sim_io *io = d->under_way; io; io = io->next) {
		if (io->proc == proc)
			return true;
	}
	return false;
}

void sim_disk_stall(struct sim *s, unsigned proc, uint64_t for_ns)
{
	if (s->stall_until_ns[proc] < s->now_ns + for_ns)
		s->stall_until_ns[proc] = s->now_ns + for_ns;
}

uint64_t sim_disk_longest_ns(const struct sim *s)
{
	return s->faults.io_max_ns +
	       (s->faults.stall_pm ? s->faults.stall_max_ns : 0);
}
