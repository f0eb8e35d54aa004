/* The operating system's chance, out of a seed: what the standard library and tokio draw is the same in every run. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>

static uint64_t state;
static int begun;

static uint64_t next(void)
{
	/* splitmix64 */
	uint64_t z;
	if (!begun) {
		const char *seed = getenv("SIMULATION_SEED");
		state = seed ? strtoull(seed, NULL, 10) : 0;
		begun = 1;
	}
	z = (state += 0x9e3779b97f4a7c15ULL);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

ssize_t getrandom(void *buffer, size_t length, unsigned int flags)
{
	unsigned char *at = buffer;
	size_t n;
	(void)flags;
	for (n = 0; n < length; n++)
		at[n] = (unsigned char)next();
	return (ssize_t)length;
}
