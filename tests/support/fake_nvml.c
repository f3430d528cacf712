/* A libnvidia-ml.so.1 without a driver behind it, for what a real card will not do on demand.
 *
 * It has the part of NVML's ABI that is used here (NVIDIA's "NVML API Reference Guide"), and does what the file
 * named by FAKE_NVML_CONTROL says at every call. That file holds lines of a word and a number:
 *
 *   cards 2            how many cards there are
 *   driver 0           no driver is loaded
 *   utilization 37     percent, of every card
 *   power 0            the cards do not tell their power
 *   old 1              a driver that knows only the first version of the memory's figures
 *   new 1              a driver that knows only the second version of the temperature
 *   cuda 12080         the newest CUDA of the driver, as NVML writes it: 12080 is 12.8
 *   capability 86      the compute capability of every card, 8.6
 *   lost 1             the last card falls off the bus: gone until NVML is closed and opened again without this
 *   hang 1             calls do not come back while this stands
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, FUNCTION_NOT_FOUND = 13, GPU_IS_LOST = 15, VERSION_MISMATCH = 25
};

typedef struct { int index; } *Device;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;
typedef struct { unsigned version, sensor; int temperature; } TemperatureV1;

#define MOST 16
#define MIB (1ull << 20)
static const unsigned long long TOTAL = 8192 * MIB, RESERVED = 300 * MIB, USED = 5000 * MIB;

static struct { int index; } cards[MOST];
static int opened, last_lost;

static int says(const char *wanted, int otherwise)
{
    const char *path = getenv("FAKE_NVML_CONTROL");
    FILE *file = path ? fopen(path, "r") : NULL;
    char word[32];
    int number, found = otherwise;
    if (!file)
        return otherwise;
    while (fscanf(file, "%31s %d", word, &number) == 2)
        if (!strcmp(word, wanted))
            found = number;
    fclose(file);
    return found;
}

static int usable(void)
{
    while (says("hang", 0))
        usleep(10000);
    return opened > 0 ? SUCCESS : UNINITIALIZED;
}

static int usable_card(Device card)
{
    int code = usable();
    if (code != SUCCESS)
        return code;
    if (says("lost", 0))
        last_lost = 1;
    return last_lost && card->index == says("cards", 1) - 1 ? GPU_IS_LOST : SUCCESS;
}

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    while (says("hang", 0))
        usleep(10000);
    if (!says("driver", 1))
        return DRIVER_NOT_LOADED;
    if (opened++ == 0)
        last_lost = 0;
    return SUCCESS;
}

int nvmlShutdown(void)
{
    int code = usable();
    if (code == SUCCESS)
        opened--;
    return code;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    int code = usable();
    if (code == SUCCESS && snprintf(version, length, "575.00") >= (int)length)
        return INSUFFICIENT_SIZE;
    return code;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    int code = usable();
    if (code == SUCCESS)
        *version = says("cuda", 12080);
    return code;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    int code = usable();
    if (code == SUCCESS)
        *count = says("cards", 1);
    return code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *card)
{
    if (index >= MOST || (int)index >= says("cards", 1))
        return INVALID_ARGUMENT;
    cards[index].index = index;
    *card = (Device)&cards[index];
    return usable_card(*card);
}

int nvmlDeviceGetName(Device card, char *name, unsigned length)
{
    int code = usable_card(card);
    if (code == SUCCESS && snprintf(name, length, "NVIDIA Imaginary %d", card->index) >= (int)length)
        return INSUFFICIENT_SIZE;
    return code;
}

int nvmlDeviceGetCudaComputeCapability(Device card, int *major, int *minor)
{
    int code = usable_card(card);
    if (code == SUCCESS) {
        *major = says("capability", 86) / 10;
        *minor = says("capability", 86) % 10;
    }
    return code;
}

int nvmlDeviceGetUUID(Device card, char *uuid, unsigned length)
{
    int code = usable_card(card);
    if (code == SUCCESS && snprintf(uuid, length, "GPU-00000000-0000-0000-0000-%012d", card->index) >= (int)length)
        return INSUFFICIENT_SIZE;
    return code;
}

int nvmlDeviceGetUtilizationRates(Device card, Utilization *rates)
{
    int code = usable_card(card);
    if (code == SUCCESS)
        *rates = (Utilization){ says("utilization", 37), 12 };
    return code;
}

int nvmlDeviceGetMemoryInfo(Device card, Memory *memory)
{
    int code = usable_card(card);
    if (code == SUCCESS)
        *memory = (Memory){ TOTAL, TOTAL - RESERVED - USED, RESERVED + USED };
    return code;
}

int nvmlDeviceGetMemoryInfo_v2(Device card, MemoryV2 *memory)
{
    int code = usable_card(card);
    if (code == SUCCESS && says("old", 0))
        return FUNCTION_NOT_FOUND;
    if (code == SUCCESS && memory->version != (sizeof *memory | 2u << 24))
        return VERSION_MISMATCH;
    if (code == SUCCESS)
        *memory = (MemoryV2){ memory->version, TOTAL, RESERVED, TOTAL - RESERVED - USED, USED };
    return code;
}

int nvmlDeviceGetTemperature(Device card, unsigned sensor, unsigned *degrees)
{
    int code = usable_card(card);
    if (code == SUCCESS && (sensor != 0 || says("new", 0)))
        return sensor != 0 ? INVALID_ARGUMENT : FUNCTION_NOT_FOUND;
    *degrees = 61;
    return code;
}

int nvmlDeviceGetTemperatureV(Device card, TemperatureV1 *reading)
{
    int code = usable_card(card);
    if (code == SUCCESS && reading->version != (sizeof *reading | 1u << 24))
        return VERSION_MISMATCH;
    reading->temperature = 62;
    return code;
}

int nvmlDeviceGetPowerUsage(Device card, unsigned *milliwatts)
{
    int code = usable_card(card);
    if (code == SUCCESS && !says("power", 1))
        return NOT_SUPPORTED;
    *milliwatts = 45500;
    return code;
}
