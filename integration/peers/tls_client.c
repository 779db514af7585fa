/* An HTTPS client of OpenSSL in the ways that C programs use it: tls_client HOST PORT CA [OPTION …]
 *
 * HOST is always 127.0.0.1. Each line of standard input is a request and gets a line, as in tls_client.py:
 * `METHOD PATH [FILE OF THE BODY]` -> `STATUS LENGTH SHA1`; `PIPELINE PATH PATH …` writes all requests, each by a
 * call of its own, before it reads the answers, whose summaries stand in one line.
 *
 * How OpenSSL reaches the socket:
 *   (none)     SSL_set_fd, blocking
 *   memory     two memory BIOs; this program reads and writes the socket
 *   chain      BIO_new_ssl_connect: BIO_f_ssl before BIO_s_connect, used by BIO_read and BIO_write
 *   partial    a non-blocking socket with tiny buffers, SSL_MODE_ENABLE_PARTIAL_WRITE; reads of odd sizes
 *   thread     a thread carries the ciphertext between a unix socket, which OpenSSL has, and the TCP socket
 *   process    a forked process carries it
 *   named      as thread, but the object was given the TCP socket's descriptor before it got the unix socket's
 * and what else:
 *   ex         SSL_read_ex and SSL_write_ex
 *   readahead  SSL_CTX_set_read_ahead
 *   fresh      a connection and an SSL object for each request; the object is freed after it
 *   clear      a connection for each request, always with the same SSL object: SSL_clear
 *   fork       the handshake is made by a parent, which then waits; the child asks
 *   seccomp    after the handshake only read, write, exit and memory are allowed; all else kills the process
 *   tls1.2     no newer version
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>

enum way { DESCRIPTOR, MEMORY, CHAIN, PARTIAL, THREAD, PROCESS };

static enum way way = DESCRIPTOR;
static int ex, fresh, clear, named;
static const char *host;
static int port;
static SSL_CTX *context;
static SSL *ssl;
static BIO *chain;
static int fd = -1;
static char input[1 << 16];
static size_t input_len;
/* What of an answer was read too early. */
static char ahead[1 << 16];
static size_t ahead_len;

static void fail(const char *what) {
    fprintf(stderr, "tls_client: %s: %s\n", what, strerror(errno));
    ERR_print_errors_fp(stderr);
    _exit(1);
}

static void *checked(void *made, const char *what) {
    if (made == NULL) fail(what);
    return made;
}

static int connected(void) {
    int made = socket(AF_INET, SOCK_STREAM, 0), size = 4096, one = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (made < 0) fail("socket");
    if (way == PARTIAL) {
        setsockopt(made, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
        setsockopt(made, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    }
    if (connect(made, (struct sockaddr *)&to, sizeof to) != 0) fail("connect");
    setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return made;
}

static void all_out(int to, const char *bytes, size_t len) {
    while (len > 0) {
        ssize_t n = write(to, bytes, len);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd ready = {to, POLLOUT, 0};
            poll(&ready, 1, -1);
            continue;
        }
        if (n <= 0) return;
        bytes += n;
        len -= n;
    }
}

/* Carries bytes between two sockets until one of them ends. */
static void *carry(void *pair) {
    int *ends = pair;
    char buffer[16384];
    struct pollfd ready[2] = {{ends[0], POLLIN, 0}, {ends[1], POLLIN, 0}};
    for (;;) {
        if (poll(ready, 2, -1) < 0) return NULL;
        for (int at = 0; at < 2; at++) {
            if (!(ready[at].revents & (POLLIN | POLLHUP))) continue;
            ssize_t n = read(ends[at], buffer, sizeof buffer);
            if (n <= 0) return NULL;
            all_out(ends[1 - at], buffer, n);
        }
    }
}

/* A unix socket whose other end somebody else carries to the TCP socket. */
static int carried(void) {
    static int ends[2];
    int pair[2];
    pthread_t thread;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) fail("socketpair");
    ends[0] = pair[1];
    ends[1] = connected();
    if (named) SSL_set_fd(ssl, ends[1]);
    if (way == THREAD) {
        if (pthread_create(&thread, NULL, carry, ends) != 0) fail("pthread_create");
    } else {
        pid_t child = fork();
        if (child < 0) fail("fork");
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(pair[0]);
            carry(ends);
            _exit(0);
        }
        close(ends[0]);
        close(ends[1]);
    }
    return pair[0];
}

/* Memory BIOs: sends what OpenSSL has made; with `more`, waits for more from the socket. */
static void flush(int more) {
    char buffer[1 << 15];
    int n;
    while ((n = BIO_read(SSL_get_wbio(ssl), buffer, sizeof buffer)) > 0) all_out(fd, buffer, n);
    if (!more) return;
    ssize_t got = read(fd, buffer, sizeof buffer);
    if (got <= 0) fail("the connection ended");
    BIO_write(SSL_get_rbio(ssl), buffer, got);
}

/* After a call that did not succeed: waits for what it wants. */
static void retry(int result) {
    int error = SSL_get_error(ssl, result);
    struct pollfd ready = {fd, error == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN, 0};
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) fail("TLS");
    if (way == MEMORY)
        flush(error == SSL_ERROR_WANT_READ);
    else
        poll(&ready, 1, -1);
}

static void opened(void) {
    ahead_len = 0;
    if (way == CHAIN) {
        char at[32];
        chain = checked(BIO_new_ssl_connect(context), "BIO_new_ssl_connect");
        BIO_get_ssl(chain, &ssl);
        SSL_set_tlsext_host_name(ssl, host);
        snprintf(at, sizeof at, "127.0.0.1:%d", port);
        BIO_set_conn_hostname(chain, at);
        if (BIO_do_handshake(chain) != 1) fail("handshake");
        return;
    }
    if (ssl == NULL) {
        ssl = checked(SSL_new(context), "SSL_new");
    } else if (!SSL_clear(ssl)) {
        fail("SSL_clear");
    }
    SSL_set_tlsext_host_name(ssl, host);
    SSL_set1_host(ssl, host);
    SSL_set_connect_state(ssl);
    fd = way == THREAD || way == PROCESS ? carried() : connected();
    if (way == MEMORY)
        SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    else
        SSL_set_fd(ssl, fd);
    if (way == PARTIAL) {
        fcntl(fd, F_SETFL, O_NONBLOCK);
        SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    }
    for (int result; (result = SSL_do_handshake(ssl)) != 1;) retry(result);
    if (way == MEMORY) flush(0);
}

static void closed(void) {
    if (way == CHAIN) {
        BIO_free_all(chain);
        ssl = NULL;
        return;
    }
    SSL_shutdown(ssl);
    if (way == MEMORY) flush(0);
    close(fd);
    if (!clear) {
        SSL_free(ssl);
        ssl = NULL;
    }
}

/* One call of the library for all bytes, then as many as it takes. */
static void put(const char *bytes, size_t len) {
    while (len > 0) {
        size_t done = 0;
        int result;
        if (way == CHAIN) {
            result = BIO_write(chain, bytes, len);
            if (result <= 0) fail("BIO_write");
            done = result;
        } else if (ex) {
            result = SSL_write_ex(ssl, bytes, len, &done);
        } else {
            result = SSL_write(ssl, bytes, len);
            done = result > 0 ? result : 0;
        }
        if (result <= 0) retry(result);
        bytes += done;
        len -= done;
    }
}

static size_t get(char *bytes, size_t len) {
    static unsigned odd;
    if (ahead_len > 0) {
        size_t n = ahead_len < len ? ahead_len : len;
        memcpy(bytes, ahead, n);
        memmove(ahead, ahead + n, ahead_len -= n);
        return n;
    }
    /* Less than a record now and then. */
    if (way == PARTIAL && len > 1000) len = odd++ % 3 ? 1000 : 1;
    if (way == MEMORY) flush(0);
    for (;;) {
        size_t done = 0;
        int result;
        if (way == CHAIN) {
            result = BIO_read(chain, bytes, len);
            if (result <= 0) fail("BIO_read");
            return result;
        }
        if (ex) {
            result = SSL_read_ex(ssl, bytes, len, &done);
        } else {
            result = SSL_read(ssl, bytes, len);
            done = result > 0 ? result : 0;
        }
        if (result > 0) return done;
        retry(result);
    }
}

/* Reads one answer and prints its summary. */
static void answer(char *line, size_t size) {
    static char head[16384];
    size_t len = 0, length = 0;
    char *end, *field;
    unsigned char digest[EVP_MAX_MD_SIZE];
    do {
        if (len == sizeof head - 1) fail("an endless head");
        len += get(head + len, sizeof head - 1 - len);
        head[len] = 0;
    } while ((end = strstr(head, "\r\n\r\n")) == NULL);
    end += 4;
    if ((field = strcasestr(head, "content-length:")) != NULL && field < end) length = strtoul(field + 15, NULL, 10);
    char *body = checked(malloc(length + 1), "malloc");
    size_t have = head + len - end;
    if (have > length) {
        memmove(ahead + (have - length), ahead, ahead_len);
        memcpy(ahead, end + length, have - length);
        ahead_len += have - length;
        have = length;
    }
    memcpy(body, end, have);
    while (have < length) have += get(body + have, length - have);
    EVP_Digest(body, length, digest, NULL, EVP_sha1(), NULL);
    int at = snprintf(line, size, "%d %zu ", atoi(head + 9), length);
    for (int n = 0; n < 20; n++) at += snprintf(line + at, size - at, "%02x", digest[n]);
    free(body);
}

static void ask(const char *method, const char *path, const char *file) {
    size_t length = 0;
    int body = -1;
    struct stat status;
    if (file != NULL) {
        body = open(file, O_RDONLY);
        if (body < 0 || fstat(body, &status) != 0) fail(file);
        length = status.st_size;
    }
    char *message = checked(malloc(length + 4096), "malloc");
    int head = snprintf(message, 4096, "%s %s HTTP/1.1\r\nHost: %s:%d\r\n", method, path, host, port);
    if (file != NULL) head += snprintf(message + head, 4096 - head, "Content-Length: %zu\r\n", length);
    head += snprintf(message + head, 4096 - head, "\r\n");
    for (size_t have = 0; have < length;) {
        ssize_t n = read(body, message + head + have, length - have);
        if (n <= 0) fail(file);
        have += n;
    }
    if (body >= 0) close(body);
    put(message, head + length);
    free(message);
}

static char *line_of_input(void) {
    static char line[sizeof input];
    for (;;) {
        char *end = memchr(input, '\n', input_len);
        if (end != NULL) {
            size_t len = end - input;
            memcpy(line, input, len);
            line[len] = 0;
            memmove(input, end + 1, input_len -= len + 1);
            return line;
        }
        ssize_t n = input_len == sizeof input ? 0 : read(0, input + input_len, sizeof input - input_len);
        if (n <= 0) return NULL;
        input_len += n;
    }
}

static void say(const char *text, const char *end) {
    all_out(1, text, strlen(text));
    all_out(1, end, strlen(end));
}

/* Deny by default: a call that is not named ends the process. */
static void strict(void) {
#define ALLOW(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_read),
        ALLOW(SYS_write),
        ALLOW(SYS_exit_group),
        ALLOW(SYS_brk),
        ALLOW(SYS_mmap),
        ALLOW(SYS_munmap),
        ALLOW(SYS_mremap),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof rules / sizeof rules[0], rules};
    unsigned char digest[EVP_MAX_MD_SIZE];
    /* Loaded now: later it could not open anything. */
    EVP_Digest("", 0, digest, NULL, EVP_sha1(), NULL);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail("no_new_privs");
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) fail("seccomp");
}

int main(int count, char **words) {
    int readahead = 0, forked = 0, filtered = 0, old = 0;
    char *line, *rest;
    if (count < 4) {
        fprintf(stderr, "tls_client HOST PORT CA [OPTION ...]\n");
        return 2;
    }
    host = words[1];
    port = atoi(words[2]);
    for (int at = 4; at < count; at++) {
        struct {
            const char *name;
            int *flag;
            int value;
        } options[] = {{"memory", (int *)&way, MEMORY},   {"chain", (int *)&way, CHAIN},
                       {"partial", (int *)&way, PARTIAL}, {"thread", (int *)&way, THREAD},
                       {"process", (int *)&way, PROCESS}, {"ex", &ex, 1},
                       {"named", &named, 1},
                       {"readahead", &readahead, 1},      {"fresh", &fresh, 1},
                       {"clear", &clear, 1},              {"fork", &forked, 1},
                       {"seccomp", &filtered, 1},         {"tls1.2", &old, 1}};
        size_t known = sizeof options / sizeof options[0], n = 0;
        while (n < known && strcmp(options[n].name, words[at]) != 0) n++;
        if (n == known) {
            fprintf(stderr, "tls_client: unknown option %s\n", words[at]);
            return 2;
        }
        *options[n].flag = options[n].value;
    }
    signal(SIGPIPE, SIG_IGN);
    context = checked(SSL_CTX_new(TLS_client_method()), "SSL_CTX_new");
    if (SSL_CTX_load_verify_locations(context, words[3], NULL) != 1) fail(words[3]);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (old) SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_read_ahead(context, readahead);
    int each = fresh || clear;
    if (!each) opened();
    if (forked) {
        pid_t child = fork();
        int status;
        if (child < 0) fail("fork");
        if (child > 0) {
            /* Only the child talks from here on. */
            close(0);
            close(fd);
            waitpid(child, &status, 0);
            return WEXITSTATUS(status);
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    if (filtered) strict();
    say("ready", "\n");
    while ((line = line_of_input()) != NULL) {
        char told[128];
        char *method = strtok_r(line, " ", &rest), *path = strtok_r(NULL, " ", &rest);
        if (method == NULL || path == NULL) fail("a line without method and path");
        if (each) opened();
        if (strcmp(method, "PIPELINE") == 0) {
            int asked = 0;
            for (; path != NULL; path = strtok_r(NULL, " ", &rest), asked++) ask("GET", path, NULL);
            for (int n = 0; n < asked; n++) {
                answer(told, sizeof told);
                say(told, n + 1 < asked ? " " : "\n");
            }
        } else {
            ask(method, path, strtok_r(NULL, " ", &rest));
            answer(told, sizeof told);
            say(told, "\n");
        }
        if (each) closed();
    }
    _exit(0);
}
