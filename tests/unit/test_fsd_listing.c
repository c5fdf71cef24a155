/* Where the listing of an open directory ends, whoever has read which part of it (services/fsd/listing.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/fsd/listing.h"

static void a_listing_ends_at_what_there_was_when_it_began(void **state)
{
	(void)state;
	assert_int_equal(listing_end(7, 0, 100), 100);
	listing_gave(7, 0, 40);
	/* whole answers and parts of one, and another directory beside it */
	assert_int_equal(listing_end(7, 40, 200), 100);
	assert_int_equal(listing_end(8, 0, 5), 5);
	listing_gave(7, 40, 100);
	assert_int_equal(listing_end(7, 60, 200), 100);
	listing_gave(7, 60, 100);
	assert_int_equal(listing_end(7, 100, 200), 100);
	listing_gave(7, 100, 100);
	listing_closed(7);
	listing_closed(8);
}

static void one_that_begins_anew_shows_what_there_is(void **state)
{
	(void)state;
	assert_int_equal(listing_end(7, 0, 100), 100);
	listing_gave(7, 0, 40);
	/* rewinddir */
	assert_int_equal(listing_end(7, 0, 150), 150);
	listing_gave(7, 0, 40);
	/* to elsewhere; or the kernel had the begin of a new one itself */
	assert_int_equal(listing_end(7, 90, 200), 200);
	listing_gave(7, 90, 199);
	assert_int_equal(listing_end(7, 20, 300), 300);
	listing_gave(7, 20, 300);
	/* it was over */
	listing_gave(7, 300, 300);
	assert_int_equal(listing_end(7, 300, 400), 400);
	listing_closed(7);
	/* of a process before this one, or of nothing that is open */
	assert_int_equal(listing_end(7, 50, 60), 60);
	listing_closed(7);
	assert_int_equal(listing_end(0, 50, 60), 60);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_listing_ends_at_what_there_was_when_it_began),
		cmocka_unit_test(one_that_begins_anew_shows_what_there_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
