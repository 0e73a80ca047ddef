/* A small web server for the tests of containers, linked statically so that it is an image all by itself.
 *
 * It answers every request on HOST:PORT (127.0.0.1 unless given), prints a line for each, and ends on SIGTERM: as the first process of a
 * container it has to say so, the kernel ends it for no signal that it does not handle. With STUBBORN it does not; with
 * GREEDY a request for /eat makes it take so many MiB. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void end(int signal)
{
    (void)signal;
    _exit(0);
}

static void eat(long mebibytes)
{
    for (long taken = 0; taken < mebibytes; taken++) {
        char *more = malloc(1 << 20);
        if (more)
            memset(more, 1, 1 << 20);
    }
}

int main(void)
{
    const char *host = getenv("HOST"), *port = getenv("PORT"), *greedy = getenv("GREEDY");
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(atoi(port ? port : "0")) };

    address.sin_addr.s_addr = inet_addr(host ? host : "127.0.0.1");
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    if (!getenv("STUBBORN"))
        signal(SIGTERM, end);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) {
        perror("listen");
        return 1;
    }
    printf("listening as %s\n", getenv("NAME") ? getenv("NAME") : "nobody");
    for (;;) {
        static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        char request[1024] = "";
        int client = accept(listener, NULL, NULL);

        if (client < 0)
            continue;
        if (read(client, request, sizeof request - 1) > 0)
            printf("%.*s\n", (int)strcspn(request, "\r\n"), request);
        if (greedy && !strncmp(request, "GET /eat ", 9))
            eat(atol(greedy));
        if (write(client, answer, sizeof answer - 1) < 0)
            perror("write");
        close(client);
    }
}
