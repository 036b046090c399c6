/* A payload that stops whatever enters its pid namespace. */
#include <signal.h>

int main(void)
{
    for (;;)
        kill(-1, SIGSTOP);
}
