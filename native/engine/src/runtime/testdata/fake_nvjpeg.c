/* Stands for libnvjpeg in tests: the functions of nvjpeg.h (CUDA 13.0) that are used, with their types, for "device"
 * memory that is ordinary memory. It knows the pixels of the files it was given, checks what it is told, and counts. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_PARAMETER = 2, BAD_JPEG = 3, MOST = 4096 };

typedef struct nvjpegHandle { int alive; } *nvjpegHandle_t;
typedef struct nvjpegJpegState { nvjpegHandle_t of; int batch; } *nvjpegJpegState_t;
typedef struct { unsigned char *channel[4]; size_t pitch[4]; } nvjpegImage_t;

static struct { unsigned char *file; size_t length; unsigned char *pixels; int width, height; } known[MOST];
static int count, fail_decode, refuse_flags, lie;

/* What the tests see: [0] handles and states alive, [1] batches initialized, [2] batches decoded, [3] images decoded,
 * [4] wrong arguments, [5] flags asked for. */
long fake_counts[6];

void fake_reset(void) {
  count = fail_decode = refuse_flags = lie = 0;
  memset(fake_counts, 0, sizeof fake_counts);
}
void fake_fail_decode(int status) { fail_decode = status; }
void fake_refuse_flags(void) { refuse_flags = 1; }
void fake_lie_about_size(void) { lie = 1; }

void fake_know(const unsigned char *file, size_t length, const unsigned char *pixels, int width, int height) {
  if (count == MOST) return;
  known[count].file = malloc(length);
  memcpy(known[count].file, file, length);
  known[count].length = length;
  known[count].pixels = malloc((size_t)width * height * 3);
  memcpy(known[count].pixels, pixels, (size_t)width * height * 3);
  known[count].width = width;
  known[count++].height = height;
}

static int find(const unsigned char *data, size_t length) {
  for (int i = 0; i < count; i++)
    if (known[i].length == length && memcmp(known[i].file, data, length) == 0) return i;
  return -1;
}

static int wrong(void) {
  fake_counts[4]++;
  return INVALID_PARAMETER;
}

int nvjpegCreateSimple(nvjpegHandle_t *handle) {
  *handle = malloc(sizeof **handle);
  (*handle)->alive = 1;
  fake_counts[0]++;
  return SUCCESS;
}

int nvjpegCreateEx(int backend, void *device, void *pinned, unsigned flags, nvjpegHandle_t *handle) {
  fake_counts[5] = flags;
  if (refuse_flags) return INVALID_PARAMETER;
  if (backend != 0 || device || pinned) return wrong();
  return nvjpegCreateSimple(handle);
}

int nvjpegDestroy(nvjpegHandle_t handle) {
  if (!handle || !handle->alive) return wrong();
  handle->alive = 0;
  free(handle);
  fake_counts[0]--;
  return SUCCESS;
}

int nvjpegJpegStateCreate(nvjpegHandle_t handle, nvjpegJpegState_t *state) {
  if (!handle || !handle->alive) return wrong();
  *state = malloc(sizeof **state);
  (*state)->of = handle;
  (*state)->batch = -1;
  fake_counts[0]++;
  return SUCCESS;
}

int nvjpegJpegStateDestroy(nvjpegJpegState_t state) {
  if (!state || !state->of->alive) return wrong(); /* the state goes first */
  free(state);
  fake_counts[0]--;
  return SUCCESS;
}

int nvjpegGetImageInfo(nvjpegHandle_t handle, const unsigned char *data, size_t length, int *components,
                       int *subsampling, int *widths, int *heights) {
  if (!handle || !handle->alive) return wrong();
  int i = find(data, length);
  if (i < 0) return BAD_JPEG;
  *components = 3;
  *subsampling = 2;
  for (int c = 0; c < 4; c++) {
    widths[c] = c == 0 ? known[i].width + lie : c < 3 ? (known[i].width + 1) / 2 : 0;
    heights[c] = c == 0 ? known[i].height : c < 3 ? (known[i].height + 1) / 2 : 0;
  }
  return SUCCESS;
}

int nvjpegDecodeBatchedInitialize(nvjpegHandle_t handle, nvjpegJpegState_t state, int batch, int threads, int format) {
  if (!handle || !state || state->of != handle || batch < 1 || threads < 1 || format != 5) return wrong();
  state->batch = batch;
  fake_counts[1]++;
  return SUCCESS;
}

int nvjpegDecodeBatched(nvjpegHandle_t handle, nvjpegJpegState_t state, const unsigned char *const *data,
                        const size_t *lengths, nvjpegImage_t *images, void *stream) {
  if (!handle || !state || state->of != handle || state->batch < 1 || stream) return wrong();
  if (fail_decode) return fail_decode;
  for (int b = 0; b < state->batch; b++) {
    int i = find(data[b], lengths[b]);
    if (i < 0) return BAD_JPEG;
    size_t row = (size_t)known[i].width * 3;
    if (!images[b].channel[0] || images[b].pitch[0] < row || images[b].channel[1]) return wrong();
    for (int y = 0; y < known[i].height; y++)
      memcpy(images[b].channel[0] + y * images[b].pitch[0], known[i].pixels + y * row, row);
    fake_counts[3]++;
  }
  fake_counts[2]++;
  return SUCCESS;
}
