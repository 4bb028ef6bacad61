// Maps a file like the dynamic loader would, as a whole and at one address, and never returns from its code.
// Arguments: the file, and the offset of the code to call.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

int main(int argc, char **argv) {
    struct stat facts;
    int file = argc == 3 ? open(argv[1], O_RDONLY) : -1;
    if (file < 0 || fstat(file, &facts)) {
        perror("giant");
        return 1;
    }
    char *code = mmap(NULL, facts.st_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0);
    if (code == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    ((void (*)(void))(code + strtoul(argv[2], NULL, 10)))();
    return 0;
}
