/* The operating system's chance, out of a seed: what the standard library and tokio draw is the same in every run. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
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

/* Some ask the kernel themselves. */
long syscall(long number, ...)
{
	static long (*real)(long, ...);
	long a[6];
	int n;
	va_list rest;
	va_start(rest, number);
	for (n = 0; n < 6; n++)
		a[n] = va_arg(rest, long);
	va_end(rest);
	if (number == SYS_getrandom)
		return getrandom((void *)a[0], (size_t)a[1], (unsigned int)a[2]);
	if (!real)
		real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
