/* Sends packets as fast as it can and prints what one of them cost.
 *
 *   load echo TARGET PORT                answers every datagram to that address, until it is ended
 *   load hello SOURCE TARGET PORT        makes a session: four datagrams out, four answers back
 *   load flow DEVICE MAC TUPLES COUNT    COUNT packets, each tuple of the file again and again
 *   load new DEVICE MAC TUPLES COUNT     the same with a source port of its own for each packet
 *   load serve PORT                      accepts connections, answers four bytes and closes, until it is ended
 *   load connect SOURCE TARGET PORT COUNT   COUNT connections one after the other: open, four bytes each way, close
 *
 * A line of TUPLES is `SOURCE TARGET PORT` (IPv4). Packets are UDP of 100 bytes, and their source port is PORT as
 * long as it is not `new`. They leave by a packet socket, so that neither routes nor sockets of the sender take
 * part. The figure is nanoseconds for each packet or connection; where the clock counts instructions, it is
 * instructions. With LOAD_CHECKSUMS in the environment packets have a UDP checksum.
 */
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { MOST_TUPLES = 65536, FIRST_PORT = 1024, LAST_PORT = 65535, LENGTH = 100 };

struct tuple {
    in_addr_t source, target;
    in_port_t port;
};

struct frame {
    struct ethhdr ethernet;
    struct iphdr ip;
    struct udphdr udp;
    char body[LENGTH - sizeof(struct iphdr) - sizeof(struct udphdr)];
} __attribute__((packed));

static void die(const char *what) {
    perror(what);
    exit(1);
}

static struct sockaddr_in address(const char *text, const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    if (inet_pton(AF_INET, text, &address.sin_addr) != 1) die(text);
    return address;
}

static int bound(struct sockaddr_in own) {
    int one = 1, fd = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, SOL_IP, IP_FREEBIND, &one, sizeof one);
    if (fd < 0 || bind(fd, (void *)&own, sizeof own)) die("bind");
    return fd;
}

static _Noreturn void echo(const char *target, const char *port) {
    int fd = bound(address(target, port));
    for (;;) {
        char body[LENGTH];
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        ssize_t got = recvfrom(fd, body, sizeof body, 0, (void *)&from, &size);
        if (got >= 0) sendto(fd, body, got, 0, (void *)&from, size);
    }
}

static int hello(const char *source, const char *target, const char *port) {
    int fd = bound(address(source, port));
    struct sockaddr_in peer = address(target, port);
    struct timeval patience = {.tv_sec = 1};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    for (int answers = 0, tries = 0; answers < 4; tries++) { /* who answers may still be starting */
        char answer;
        sendto(fd, "x", 1, 0, (void *)&peer, sizeof peer);
        answers += recv(fd, &answer, 1, 0) == 1;
        if (tries > 30) die("no answer");
    }
    return 0;
}

static int read_tuples(const char *path, struct tuple *tuples) {
    FILE *file = fopen(path, "r");
    if (!file) die(path);
    char source[64], target[64];
    int count = 0, port;
    while (count < MOST_TUPLES && fscanf(file, "%63s %63s %d", source, target, &port) == 3)
        tuples[count++] = (struct tuple){inet_addr(source), inet_addr(target), htons(port)};
    fclose(file);
    if (!count) die("no tuples");
    return count;
}

static unsigned short checksum(const struct iphdr *ip) {
    const unsigned short *words = (const void *)ip;
    unsigned sum = 0;
    for (unsigned i = 0; i < sizeof *ip / 2; i++) sum += words[i];
    sum = (sum & 0xffff) + (sum >> 16);
    return ~(sum + (sum >> 16));
}

/* The body is zeros. */
static unsigned short udp_checksum(const struct frame *frame) {
    in_addr_t source = frame->ip.saddr, target = frame->ip.daddr;
    unsigned sum = htons(IPPROTO_UDP) + 2 * frame->udp.len + frame->udp.source + frame->udp.dest;
    sum += (source & 0xffff) + (source >> 16) + (target & 0xffff) + (target >> 16);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    return sum == 0xffff ? 0xffff : ~sum;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int load(const char *device, const char *mac, const char *path, int count, int fresh) {
    static struct tuple tuples[MOST_TUPLES];
    int many = read_tuples(path, tuples);
    struct sockaddr_ll way = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(device)};
    int fd = socket(AF_PACKET, SOCK_RAW, 0); /* protocol 0: it sends, and receives nothing */
    if (fd < 0 || bind(fd, (void *)&way, sizeof way)) die(device);

    struct frame frame = {.ethernet.h_proto = htons(ETH_P_IP)};
    unsigned char *to = frame.ethernet.h_dest;
    if (sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", to, to + 1, to + 2, to + 3, to + 4, to + 5) != 6) die(mac);
    frame.ethernet.h_source[0] = 2;
    frame.udp.len = htons(LENGTH - sizeof frame.ip);

    int summed = getenv("LOAD_CHECKSUMS") != NULL;
    double start = now();
    for (int i = 0; i < count; i++) {
        const struct tuple *tuple = &tuples[i % many];
        struct iphdr ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP,
                           .tot_len = htons(LENGTH), .saddr = tuple->source, .daddr = tuple->target};
        ip.check = checksum(&ip);
        frame.ip = ip;
        frame.udp.source = fresh ? htons(FIRST_PORT + i % (LAST_PORT - FIRST_PORT)) : tuple->port;
        frame.udp.dest = tuple->port;
        if (summed) frame.udp.check = udp_checksum(&frame);
        if (send(fd, &frame, sizeof frame, 0) < 0) die("send");
    }
    printf("%.0f\n", (now() - start) / count);
    return 0;
}

static _Noreturn void serve(const char *port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in own = address("0.0.0.0", port);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (void *)&own, sizeof own) || listen(fd, 512)) die("listen");
    for (;;) {
        char body[LENGTH];
        int peer = accept(fd, NULL, NULL);
        if (peer < 0) continue;
        if (read(peer, body, sizeof body) > 0 && write(peer, "pong", 4) != 4) perror("write");
        close(peer);
    }
}

static int connections(const char *source, const char *target, const char *port, int count) {
    struct sockaddr_in own = address(source, "0"), peer = address(target, port);
    double start = now();
    for (int i = 0; i < count; i++) {
        char body[LENGTH];
        int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (fd < 0 || bind(fd, (void *)&own, sizeof own)) die("bind");
        if (connect(fd, (void *)&peer, sizeof peer)) die("connect");
        if (write(fd, "ping", 4) != 4 || read(fd, body, sizeof body) != 4) die("no answer");
        if (read(fd, body, sizeof body) != 0) die("no end");
        close(fd);
    }
    printf("%.0f\n", (now() - start) / count);
    return 0;
}

int main(int count, char **words) {
    if (count == 4 && !strcmp(words[1], "echo")) echo(words[2], words[3]);
    if (count == 5 && !strcmp(words[1], "hello")) return hello(words[2], words[3], words[4]);
    if (count == 6 && !strcmp(words[1], "flow")) return load(words[2], words[3], words[4], atoi(words[5]), 0);
    if (count == 6 && !strcmp(words[1], "new")) return load(words[2], words[3], words[4], atoi(words[5]), 1);
    if (count == 3 && !strcmp(words[1], "serve")) serve(words[2]);
    if (count == 6 && !strcmp(words[1], "connect")) return connections(words[2], words[3], words[4], atoi(words[5]));
    fprintf(stderr, "load: see the head of its source\n");
    return 2;
}
