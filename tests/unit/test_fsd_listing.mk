UNIT_EXTRA_test_fsd_listing = services/fsd/listing.c
