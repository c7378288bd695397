#define LESIONFORGE_ISA "generic"
#define LESIONFORGE_ISA_TABLE kAttentionGeneric
#define LESIONFORGE_LANES 4
#define LESIONFORGE_SCORE_ROWS 6
#define LESIONFORGE_GRADIENT_ROWS 3
#define LESIONFORGE_GRADIENT_KEYS 2
#include "attention_kernels.inl"
