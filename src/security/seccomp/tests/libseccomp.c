/* What libseccomp makes of profiles: the other side of tests/oracle.rs, which explains the words. */
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s\n", what, strerror(-result));
		exit(1);
	}
}

static void rule(scmp_filter_ctx filter, char *words)
{
	struct scmp_arg_cmp conditions[6];
	unsigned int action, count = 0, length;
	char name[64];
	int op;

	if (sscanf(words, "%u %63s%n", &action, name, &length) != 2)
		exit(2);
	words += length;
	while (sscanf(words, " %u %d %lu %lu%n", &conditions[count].arg, &op,
		      &conditions[count].datum_a, &conditions[count].datum_b, &length) == 4) {
		conditions[count++].op = op;
		words += length;
	}
	int call = seccomp_syscall_resolve_name(name);
	if (call != __NR_SCMP_ERROR)
		must(seccomp_rule_add_array(filter, action, call, count, conditions), name);
}

int main(void)
{
	static char line[4096];
	scmp_filter_ctx filter = NULL;
	unsigned int word;
	char name[64];

	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "number %u %63s", &word, name) == 2) {
			printf("%d\n", seccomp_syscall_resolve_name_arch(word, name));
		} else if (sscanf(line, "profile %u", &word) == 1) {
			filter = seccomp_init(word);
			must(seccomp_arch_remove(filter, SCMP_ARCH_NATIVE), "native");
		} else if (sscanf(line, "architecture %u", &word) == 1) {
			must(seccomp_arch_add(filter, word), "architecture");
		} else if (strncmp(line, "rule ", 5) == 0) {
			rule(filter, line + 5);
		} else if (strncmp(line, "end", 3) == 0) {
			struct { unsigned short code; unsigned char jt, jf; unsigned int k; } step;
			FILE *file = tmpfile();
			must(seccomp_export_bpf(filter, fileno(file)), "export");
			rewind(file);
			while (fread(&step, sizeof(step), 1, file) == 1)
				printf("%u %u %u %u ", step.code, step.jt, step.jf, step.k);
			printf("\n");
			fclose(file);
			seccomp_release(filter);
		}
	}
	return 0;
}
