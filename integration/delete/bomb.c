/* Every process forks for ever, ignores what can be ignored, and goes on where fork fails. */
#include <signal.h>
#include <unistd.h>

int main(void)
{
	for (int number = 1; number < 32; number++)
		signal(number, SIG_IGN);
	for (;;)
		fork();
}
