// Every CUDA source in one unit, which compiles fastest.
#include "../../../kernels/csrc/cuda/bit_images.cu"
#include "../../../kernels/csrc/cuda/components.cu"
#include "../../../kernels/csrc/cuda/levels.cu"
#include "../../../kernels/csrc/cuda/mask_extraction.cu"
#include "../../../kernels/csrc/cuda/otsu.cu"
#include "../../../kernels/csrc/cuda/seeded_noise.cu"
