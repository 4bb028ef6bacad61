// options: -O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls -pthread
// Work that is bound by a lock. What is said to be outside is done outside of the lock instead, at the same cost.
// usage: bound_lock mutex inside|outside THREADS    an index behind a mutex
//        bound_lock rwlock inside|outside THREADS   the same behind a lock of readers and writers, which all write
//        bound_lock spin inside|outside             a slot behind a spinlock, a thread for each CPU
//        bound_lock inode shared|own THREADS        writes into a file that lies in memory: one, or one for each thread
//        bound_lock mappings shared|own WORKERS     changes protection of memory: in threads, or in processes
//        bound_lock file shared|own PROCESSES DIR   holds a file's lock: of one file, or of one for each process
//        bound_lock sync each|batch THREADS FILE    a mutex whose holder writes a record and flushes it: each, or one of 64
#include "work.h"
#include <sys/file.h>

static int inside;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static atomic_int slot;

NOINLINE void rebuild_index(void) { burn(400); }
NOINLINE void look_up(void) { burn(5); }

static void *indexes(void *unused) {
    for (;;) {
        if (!inside) {
            rebuild_index();
        }
        pthread_mutex_lock(&mutex);
        if (inside) {
            rebuild_index();
        }
        look_up();
        pthread_mutex_unlock(&mutex);
        look_up();
        did(1);
    }
    return unused;
}

static void *writes_table(void *unused) {
    for (;;) {
        if (!inside) {
            rebuild_index();
        }
        pthread_rwlock_wrlock(&rwlock);
        if (inside) {
            rebuild_index();
        }
        look_up();
        pthread_rwlock_unlock(&rwlock);
        look_up();
        did(1);
    }
    return unused;
}

NOINLINE void fill_slot(void) { burn(100); }

NOINLINE void acquire_slot(void) {
    while (atomic_exchange_explicit(&slot, 1, memory_order_acquire)) {
        while (atomic_load_explicit(&slot, memory_order_relaxed)) {
        }
    }
}

static void *fills_slots(void *unused) {
    for (;;) {
        if (!inside) {
            fill_slot();
        }
        acquire_slot();
        if (inside) {
            fill_slot();
        }
        atomic_store_explicit(&slot, 0, memory_order_release);
        look_up();
        did(1);
    }
    return unused;
}

#define WRITE_BYTES (1 << 20)
static int shared_file;

NOINLINE void write_file(int file, const char *bytes) {
    check(pwrite(file, bytes, WRITE_BYTES, 0) == WRITE_BYTES, "pwrite");
}

static void *writes_files(void *unused) {
    int file = inside ? shared_file : memfd_create("own", 0);
    char *bytes = malloc(WRITE_BYTES);
    memset(bytes, 1, WRITE_BYTES);
    for (;;) {
        write_file(file, bytes);
        did(1);
    }
    return unused;
}

#define REGION_BYTES (16 << 20)

NOINLINE void protect(char *region, int protection) {
    check(!mprotect(region, REGION_BYTES, protection), "mprotect");
}

static void *protects(void *unused) {
    char *region = mmap(0, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(region != MAP_FAILED, "mmap");
    madvise(region, REGION_BYTES, MADV_NOHUGEPAGE);
    memset(region, 1, REGION_BYTES);
    for (;;) {
        protect(region, PROT_READ);
        protect(region, PROT_READ | PROT_WRITE);
        did(1);
    }
    return unused;
}

NOINLINE void lock_file(int file) { check(!flock(file, LOCK_EX), "flock"); }
NOINLINE void update_state(void) { burn(1000); }

static void locks_files(const char *directory, long process) {
    char path[4096];
    snprintf(path, sizeof path, "%s/lock-%ld", directory, inside ? 0 : process);
    int file = open(path, O_CREAT | O_RDWR, 0600);
    check(file >= 0, path);
    for (;;) {
        lock_file(file);
        update_state();
        check(!flock(file, LOCK_UN), "flock");
        did(1);
    }
}

static int journal, each;

NOINLINE void commit_record(void) {
    static char record[512];
    static unsigned written;
    check(write(journal, record, sizeof record) == sizeof record, "write");
    if (each || ++written % 64 == 0) {
        check(!fdatasync(journal), "fdatasync");
    }
}

static void *commits(void *unused) {
    for (;;) {
        pthread_mutex_lock(&mutex);
        commit_record();
        pthread_mutex_unlock(&mutex);
        look_up();
        did(1);
    }
    return unused;
}

static void run(long threads, void *(*function)(void *)) {
    for (long i = 1; i < threads; i++) {
        start(function, 0);
    }
    function(0);
}

int main(int count, char **arguments) {
    prepare();
    const char *mode = count > 1 ? arguments[1] : "", *variant = count > 2 ? arguments[2] : "";
    inside = !strcmp(variant, "inside") || !strcmp(variant, "shared");
    each = !strcmp(variant, "each");
    begin();
    if (!strcmp(mode, "mutex")) {
        run(number(count, arguments, 3), indexes);
    } else if (!strcmp(mode, "rwlock")) {
        run(number(count, arguments, 3), writes_table);
    } else if (!strcmp(mode, "spin")) {
        run(cpus(), fills_slots);
    } else if (!strcmp(mode, "inode")) {
        shared_file = memfd_create("shared", 0);
        run(number(count, arguments, 3), writes_files);
    } else if (!strcmp(mode, "mappings")) {
        for (long i = 1; i < number(count, arguments, 3); i++) {
            if (inside) {
                start(protects, 0);
            } else if (fork_child() == 0) {
                protects(0);
            }
        }
        protects(0);
    } else if (!strcmp(mode, "file") && count > 4) {
        for (long i = 1; i < number(count, arguments, 3); i++) {
            if (fork_child() == 0) {
                locks_files(arguments[4], i);
            }
        }
        locks_files(arguments[4], 0);
    } else if (!strcmp(mode, "sync") && count > 4) {
        journal = open(arguments[4], O_CREAT | O_WRONLY | O_APPEND, 0600);
        check(journal >= 0, arguments[4]);
        run(number(count, arguments, 3), commits);
    }
    return 2;
}
