/* The least that a supervisor can do: posix_spawn, waitpid, posix_spawn the same again; no logs, no limits, no trees.
 *
 * limit CHILD KIND:FILE COUNT runs children named c0000, c0001 and so on, and kills them all on SIGTERM.
 */
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 4096 };

extern char **environ;
static pid_t children[MOST];
static int total;
static volatile sig_atomic_t ends;

static void end(int signal)
{
    ends = 1;
    for (int child = 0; child < total; child++)
        if (children[child] > 0)
            kill(children[child], signal);
}

int main(int count, char **arguments)
{
    if (count < 4 || (total = atoi(arguments[3])) > MOST)
        return 64;
    sigset_t term, none;
    sigemptyset(&none);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    struct sigaction action = {.sa_handler = end, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);

    for (int child = 0, next = 0;; next++) {
        if (next < total) {
            child = next;
        } else {
            pid_t ended = waitpid(-1, NULL, 0);
            if (ended < 0)
                return ends ? 0 : 1;
            for (child = 0; child < total && children[child] != ended;)
                child++;
        }
        /* A signal must find the new process id, or keep the process from being made. */
        sigprocmask(SIG_BLOCK, &term, NULL);
        children[child] = 0;
        if (!ends) {
            char argument[512];
            snprintf(argument, sizeof argument, "%s:c%04d", arguments[2], child);
            char *command[] = {arguments[1], argument, NULL};
            if (posix_spawn(&children[child], arguments[1], NULL, &attributes, command, environ) != 0)
                return 1;
        }
        sigprocmask(SIG_UNBLOCK, &term, NULL);
    }
}
