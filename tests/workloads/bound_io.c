// options: -O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls -pthread
// Work that is bound by a device.
// usage: bound_io read FILE direct|cached     pages of a file or device at random places, past the page cache or out of it
//        bound_io write FILE direct|cached    writes them, to the device or to memory
//        bound_io dump FILE                   writes a file of 64 MiB again and again, into the page cache
//        bound_io journal FILE RECORDS        appends records, and flushes after so many
#include "work.h"
#include <sys/ioctl.h>

#define PAGE 4096
// The part of the file that is used: in memory it has room.
#define BYTES (16 << 20)

static char *page;
static unsigned long seed = 1;

static long random_place(void) {
    seed = seed * 0x5851f42d4c957f2du + 1;
    return (long)(seed >> 33) % (BYTES / PAGE) * PAGE;
}

NOINLINE void look_up_record(int file) { check(pread(file, page, PAGE, random_place()) == PAGE, "pread"); }
NOINLINE void store_record(int file) { check(pwrite(file, page, PAGE, random_place()) == PAGE, "pwrite"); }
NOINLINE void append_record(int file) { check(write(file, page, 512) == 512, "write"); }
NOINLINE void commit_records(int file) { check(!fdatasync(file), "fdatasync"); }

#define CHUNK (1 << 20)

NOINLINE void write_chunk(int file, const char *chunk, long at) {
    check(pwrite(file, chunk, CHUNK, at) == CHUNK, "pwrite");
}

static void dump(const char *path) {
    static char chunk[CHUNK];
    int file = open(path, O_CREAT | O_WRONLY, 0600);
    check(file >= 0, path);
    begin();
    for (long written = 0;; written++) {
        write_chunk(file, chunk, written % 64 * CHUNK);
        did(1);
    }
}

int main(int count, char **arguments) {
    prepare();
    if (count == 3) {
        dump(arguments[2]);
    }
    if (count < 4) {
        return 2;
    }
    const char *mode = arguments[1], *path = arguments[2];
    int direct = !strcmp(arguments[3], "direct");
    check(!posix_memalign((void **)&page, PAGE, PAGE), "posix_memalign");
    memset(page, 1, PAGE);
    if (!strcmp(mode, "journal")) {
        int file = open(path, O_CREAT | O_WRONLY | O_APPEND, 0600);
        check(file >= 0, path);
        begin();
        for (long written = 1;; written++) {
            append_record(file);
            if (written % number(count, arguments, 3) == 0) {
                commit_records(file);
            }
            did(1);
        }
    }
    int file = open(path, O_RDWR | (direct ? O_DIRECT : 0));
    check(file >= 0, path);
    for (long at = 0; !direct && at < BYTES; at += PAGE) {
        check(pread(file, page, PAGE, at) == PAGE, "pread");
    }
    begin();
    for (;;) {
        if (!strcmp(mode, "read")) {
            look_up_record(file);
        } else {
            store_record(file);
        }
        did(1);
    }
}
