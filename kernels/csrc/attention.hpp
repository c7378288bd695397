// Mean attention maps and leakage of attention. Arrays are dense, last dimension fastest; sums are float32.
#pragma once

#include <cstdint>

namespace lesionforge {

// A = mean over heads of softmax(query key^T scale) for query, key (heads, tokens, depth).
struct MeanAttention {
    const void* query;    // float32, or bfloat16 where that is said
    const void* key;
    const float* values;  // (columns, tokens), or null
    float* map;           // A (tokens, tokens), or null
    float* out;           // A values^T (tokens, columns), unless values is null
    std::int64_t heads, tokens, depth, columns;
    float scale;
    int threads;
    bool bfloat16;
};

// Task t = case * tasks_per_case + j sums u[p] = sum_q A[p, q] values[t, q] over its rows p, A as above for its case.
struct Leakage {
    const void* query;            // (cases, heads, tokens, depth), float32, or bfloat16 where that is said
    const void* key;              // likewise
    const std::int64_t* rows;     // rows of task t: rows[offsets[t]] .. rows[offsets[t + 1] - 1]
    const std::int64_t* offsets;  // (tasks + 1)
    const float* values;          // (tasks, tokens): 0 or 1
    double* sums;                 // (tasks)
    float* query_gradient;        // (cases, heads, tokens, depth): only the rows of tasks are written; or null
    float* key_gradient;          // (tasks_per_case, cases, heads, tokens, depth): added to; or null
    std::int64_t cases, tasks_per_case, heads, tokens, depth;
    float scale;
    int threads;
    bool bfloat16;
};

struct AttentionKernels {
    const char* name;
    bool bfloat16;  // whether query and key may be so
    void (*mean)(const MeanAttention&);
    void (*leakage)(const Leakage&);
};

extern const AttentionKernels kAttentionGeneric, kAttentionAvx2, kAttentionAvx512, kAttentionAmx;

// The named set of instructions, or the widest of this CPU for "". Throws std::invalid_argument if it has not got it.
const AttentionKernels& attention_kernels(const char* name);
bool has_attention_kernels(const char* name);

}  // namespace lesionforge
