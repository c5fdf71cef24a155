UNIT_EXTRA_fuzz_item = tools/scoutfsctl/print_item.c tools/scoutfsctl/print_out.c tools/scoutfsctl/cmdutil.c
