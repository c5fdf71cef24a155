/* A main() apart, so that a test can be blockd too (blockd.c). */
#include "blockd.h"

int main(int argc, char **argv)
{
	return blockd_main(argc, argv);
}
