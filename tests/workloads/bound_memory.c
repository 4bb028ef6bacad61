// options: -O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls -pthread
// Work that is bound by memory.
// usage: bound_memory buffers fresh|kept         a buffer for each request, mapped for it or kept
//        bound_memory file FILE                  pages of a file at random places, which the page cache may not have room for
//        bound_memory mapped FILE                the same through a mapping
//        bound_memory heap MEGABYTES             pages of its own at random places, which may have been swapped out
#include "work.h"
#include <sys/stat.h>

#define PAGE 4096
#define BUFFER_BYTES (4 << 20)

static volatile char sink;

static char *map_buffer(void) {
    char *buffer = mmap(0, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(buffer != MAP_FAILED, "mmap");
    // A huge page would be one fault.
    madvise(buffer, BUFFER_BYTES, MADV_NOHUGEPAGE);
    return buffer;
}

NOINLINE void fill_buffer(char *buffer) {
    for (long at = 0; at < BUFFER_BYTES; at += PAGE) {
        ((volatile char *)buffer)[at] = 1;
    }
    burn(100);
}

static void buffers(int fresh) {
    char *buffer = map_buffer();
    fill_buffer(buffer);
    begin();
    for (;;) {
        if (fresh) {
            munmap(buffer, BUFFER_BYTES);
            buffer = map_buffer();
        }
        fill_buffer(buffer);
        did(1);
    }
}

static unsigned long seed = 1;

static long random_page(long pages) {
    seed = seed * 0x5851f42d4c957f2du + 1;
    return (long)(seed >> 33) % pages;
}

NOINLINE void look_up_page(int file, long pages) {
    static char page[PAGE];
    check(pread(file, page, PAGE, random_page(pages) * PAGE) == PAGE, "pread");
}

NOINLINE void look_up_mapped(const char *memory, long pages) { sink = memory[random_page(pages) * PAGE]; }

static void file_pages(const char *path, int mapped) {
    struct stat facts;
    int file = open(path, O_RDONLY);
    check(file >= 0 && !fstat(file, &facts), path);
    long pages = facts.st_size / PAGE;
    const char *memory = mmap(0, facts.st_size, PROT_READ, MAP_SHARED, file, 0);
    check(memory != MAP_FAILED, "mmap");
    // Pages that others have read are theirs, and no limit of this group's.
    check(!posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED), "posix_fadvise");
    for (long page = 0; page < pages; page++) {
        sink = memory[page * PAGE];
    }
    posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM);
    madvise((void *)memory, facts.st_size, MADV_RANDOM);
    begin();
    for (;;) {
        if (mapped) {
            look_up_mapped(memory, pages);
        } else {
            look_up_page(file, pages);
        }
        did(1);
    }
}

NOINLINE void update_object(char *heap, long pages) { heap[random_page(pages) * PAGE]++; }

static void heap(long bytes) {
    char *objects = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(objects != MAP_FAILED, "mmap");
    madvise(objects, bytes, MADV_NOHUGEPAGE);
    for (long at = 0; at < bytes; at += PAGE) {
        objects[at] = 1;
    }
    begin();
    for (;;) {
        update_object(objects, bytes / PAGE);
        did(1);
    }
}

int main(int count, char **arguments) {
    prepare();
    if (count < 3) {
        return 2;
    }
    if (!strcmp(arguments[1], "buffers")) {
        buffers(!strcmp(arguments[2], "fresh"));
    }
    if (!strcmp(arguments[1], "heap")) {
        heap(number(count, arguments, 2) << 20);
    }
    file_pages(arguments[2], !strcmp(arguments[1], "mapped"));
}
