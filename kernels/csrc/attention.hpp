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
    void* query_gradient;         // of the query's shape and type: only the rows of tasks are written; or null
    void* key_gradient;           // (tasks_per_case, cases, heads, tokens, depth): of tasks with rows; or null
    std::int64_t cases, tasks_per_case, heads, tokens, depth;
    float scale;
    int threads;
    bool bfloat16;
};

// Gradients of the sums of leakage, times the gradients of something to these sums.
struct ScaledGradients {
    const void* of_query;    // (cases, heads, tokens, depth), float32 or bfloat16
    const void* of_key;      // (columns, cases, heads, tokens, depth), likewise; 1 or 2 columns
    const float* by_row;     // (cases, tokens): where it is 0, of_query is not read
    const float* by_column;  // (columns, cases)
    void* query_gradient;    // like of_query: of_query times by_row
    void* key_gradient;      // likewise: sum over the columns of of_key times by_column
    std::int64_t cases, columns, heads, tokens, depth;
    int threads;
    bool bfloat16;
};

struct AttentionKernels {
    const char* name;
    bool bfloat16;  // whether query and key may be so
    void (*mean)(const MeanAttention&);
    void (*leakage)(const Leakage&);
    void (*scale)(const ScaledGradients&);
};

extern const AttentionKernels kAttentionGeneric, kAttentionAvx2, kAttentionAvx512, kAttentionAmx;

// The named set of instructions, or the widest of this CPU for "". Throws std::invalid_argument if it has not got it.
const AttentionKernels& attention_kernels(const char* name);
bool has_attention_kernels(const char* name);

}  // namespace lesionforge
