/*
 * An agent as seccomp_unotify(2) has it: AGENT PATH NUMBER ERRNO. For every connection it prints the
 * container process state in a line, then the number of each call that it is asked about. The call
 * NUMBER is answered with ERRNO; all others go on.
 */
#include <linux/seccomp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void must(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	_exit(1);
}

static int receive_state(int connection)
{
	static char state[1 << 20];
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec vector = { state, sizeof(state) - 1 };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	ssize_t length = recvmsg(connection, &message, 0), more;
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	int listener;

	must(length > 0 && header && header->cmsg_type == SCM_RIGHTS, "the first message");
	memcpy(&listener, CMSG_DATA(header), sizeof(listener));
	while ((more = read(connection, state + length, sizeof(state) - 1 - length)) > 0)
		length += more;
	printf("%s\n", state);
	return listener;
}

static void answer(int listener, int number, int error)
{
	struct seccomp_notif call = { 0 };
	struct seccomp_notif_resp reply = { 0 };

	/* ENOENT: the process has ended meanwhile. */
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) < 0)
		return;
	printf("call %d\n", call.data.nr);
	reply.id = call.id;
	if (call.data.nr == number)
		reply.error = -error;
	else
		reply.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &reply);
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = { AF_UNIX };
	int server = socket(AF_UNIX, SOCK_STREAM, 0);

	must(argc == 4, "three arguments");
	setvbuf(stdout, NULL, _IOLBF, 0);
	strncpy(address.sun_path, argv[1], sizeof(address.sun_path) - 1);
	must(bind(server, (struct sockaddr *)&address, sizeof(address)) == 0, "bind");
	must(listen(server, 8) == 0, "listen");
	printf("listening\n");
	for (;;) {
		int connection = accept(server, NULL, NULL);
		must(connection >= 0, "accept");
		if (fork() == 0) {
			struct pollfd listener = { receive_state(connection), POLLIN, 0 };
			while (poll(&listener, 1, -1) > 0 && !(listener.revents & POLLHUP))
				answer(listener.fd, atoi(argv[2]), atoi(argv[3]));
			_exit(0);
		}
		close(connection);
	}
}
