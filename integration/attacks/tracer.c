/* A payload with CAP_SYS_PTRACE: seizes whatever enters its pid namespace and says what it has got,
 * a line a process: "seized PID eff=… prm=… host=… dirs=…", and "word PID" where the first argument
 * is found in its command line or its environment. The second is a path that the host alone has. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char text[1 << 16];

static size_t read_file(int pid, const char *name)
{
    char path[64];
    size_t length = 0;
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_RDONLY);
    if (fd >= 0) {
        ssize_t got;
        while (length < sizeof text - 1 && (got = read(fd, text + length, sizeof text - 1 - length)) > 0)
            length += got;
        close(fd);
    }
    text[length] = 0;
    return length;
}

static unsigned long long set_of(const char *name)
{
    const char *at = strstr(text, name);
    return at ? strtoull(at + strlen(name), NULL, 16) : 0;
}

/* Directories that the process has open. */
static int directories(int pid)
{
    char path[64];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *list = opendir(path);
    for (struct dirent *entry; list && (entry = readdir(list));) {
        struct stat what;
        if (entry->d_name[0] != '.' && !fstatat(dirfd(list), entry->d_name, &what, 0))
            count += S_ISDIR(what.st_mode);
    }
    if (list)
        closedir(list);
    return count;
}

static void look(int pid, const char *word, const char *host)
{
    char path[4096];
    read_file(pid, "status");
    unsigned long long effective = set_of("CapEff:"), permitted = set_of("CapPrm:");
    snprintf(path, sizeof path, "/proc/%d/root%s", pid, host);
    printf("seized %d eff=%llx prm=%llx host=%d dirs=%d\n", pid, effective, permitted,
           !access(path, F_OK), directories(pid));
    const char *files[] = { "cmdline", "environ" };
    for (int i = 0; i < 2; i++) {
        size_t length = read_file(pid, files[i]);
        if (memmem(text, length, word, strlen(word)))
            printf("word %d in %s\n", pid, files[i]);
    }
    fflush(stdout);
}

int main(int count, char **args)
{
    int last = getpid();
    (void)count;
    puts("ready");
    fflush(stdout);
    for (;;)
        for (int pid = last + 1; pid < last + 12; pid++) {
            int status;
            if (ptrace(PTRACE_SEIZE, pid, 0, 0)) {
                if (errno != ESRCH)
                    last = pid;
                continue;
            }
            last = pid;
            ptrace(PTRACE_INTERRUPT, pid, 0, 0);
            if (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status)) {
                look(pid, args[1], args[2]);
                ptrace(PTRACE_DETACH, pid, 0, 0);
            }
        }
}
