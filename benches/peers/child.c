/* The program that every supervisor runs: it notes when it reached main, then does what its one argument says.
 *
 * The argument is [+]KIND:FILE:NAME[:NUMBER[:NUMBER]], in one piece, since the first line of a script passes no more. A
 * plus sign tells s6 by a newline on descriptor 3 that the program is ready. Each note is one line, "NANOSECONDS PID NAME
 * KIND" of the monotonic clock, appended to the file.
 *
 *   run     waits
 *   crash   ends at once, with exit code 1
 *   tree    leaves three grandchildren: in its group, in a session of its own, and one orphaned into a session of its own
 *   lines   writes NUMBER numbered lines, notes that it is done as "end", and waits
 *   write   writes NUMBER bytes in all as lines of 100, the second NUMBER of bytes at once, notes "end", and waits
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 100, ROUND = 6553600 };

static char const *program, *file, *name;

static void note(struct timespec const *now, char const *kind)
{
    char text[512];
    int length = snprintf(text, sizeof text, "%lld %d %s %s\n", now->tv_sec * 1000000000LL + now->tv_nsec, getpid(), name,
                          kind);
    int log = open(file, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (log < 0 || write(log, text, length) != length)
        _exit(9);
    close(log);
}

static void note_now(char const *kind)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    note(&now, kind);
}

static void write_all(char const *bytes, size_t count)
{
    while (count > 0) {
        ssize_t written = write(1, bytes, count);
        if (written < 0)
            _exit(8);
        bytes += written;
        count -= written;
    }
}

static void become(char const *kind)
{
    char argument[512];
    snprintf(argument, sizeof argument, "%s:%s:%s", kind, file, name);
    execl(program, program, argument, (char *)0);
    _exit(7);
}

static void grow_tree(void)
{
    if (fork() == 0)
        become("in-group");
    if (fork() == 0) {
        setsid();
        become("in-session");
    }
    pid_t between = fork();
    if (between == 0) {
        if (fork() > 0)
            _exit(0);
        setsid();
        become("orphaned");
    }
    waitpid(between, NULL, 0);
}

static void write_lines(long count)
{
    static char buffer[1 << 16];
    size_t used = 0;
    for (long line = 0; line < count; line++) {
        if (sizeof buffer - used < 128) {
            write_all(buffer, used);
            used = 0;
        }
        used += sprintf(buffer + used, "line %08ld of %s, %08ld again.\n", line, name, line);
    }
    write_all(buffer, used);
}

static void write_bytes(long total, long at_once)
{
    static char buffer[ROUND];
    for (long byte = 0; byte < ROUND; byte++)
        buffer[byte] = byte % LINE == LINE - 1 ? '\n' : '0' + byte % 10;
    for (long written = 0; written < total;) {
        for (long offset = 0; offset < ROUND && written < total; offset += at_once) {
            long size = ROUND - offset < at_once ? ROUND - offset : at_once;
            size = total - written < size ? total - written : size;
            write_all(buffer + offset, size);
            written += size;
        }
    }
}

int main(int count, char **arguments)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (count < 2)
        return 64;
    program = arguments[0];
    char *kind = strtok(arguments[1], ":");
    int tells = *kind == '+';
    kind += tells;
    file = strtok(NULL, ":");
    name = strtok(NULL, ":");
    char const *first = strtok(NULL, ":");
    char const *second = strtok(NULL, ":");
    if (!name)
        return 64;
    note(&now, kind);
    if (tells && (write(3, "\n", 1) != 1 || close(3) != 0))
        return 9;
    if (strcmp(kind, "crash") == 0)
        return 1;
    if (strcmp(kind, "tree") == 0)
        grow_tree();
    if (strcmp(kind, "lines") == 0) {
        write_lines(atol(first));
        note_now("end");
    }
    if (strcmp(kind, "write") == 0) {
        write_bytes(atol(first), atol(second));
        note_now("end");
    }
    for (;;)
        pause();
}
