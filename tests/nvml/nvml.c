/* A libnvidia-ml.so.1 that answers from a file, for tests: the real pynvml loads it.
 *
 * $FAKE_NVML names a file of lines "KEY VALUE...": KEY is "QUESTION" for the driver and "INDEX.QUESTION" for a GPU, with
 * the questions of checks/gpu/answers.py. A value of "!N" answers with NVML's error code N, "!hang" never returns,
 * "!absent" is a function that this library does not have (code 13). The file is read again when it changes, so a GPU
 * can vanish between two calls.
 *
 * XIDs: the numbers after "INDEX.events" come one by one out of an event set.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int R;
typedef unsigned long long U64;
enum { OK = 0, UNINIT = 1, INVAL = 2, NOTSUP = 3, NOTFOUND = 6, SMALL = 7, TIMEOUT = 10 };
typedef struct { int index; } dev;

static dev devices[64];
static char *text;
static struct stat seen;
static int inits;

static void load(void) {
    const char *path = getenv("FAKE_NVML");
    struct stat now;
    if (!path || stat(path, &now)) return;
    if (text && now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec && now.st_mtim.tv_sec == seen.st_mtim.tv_sec &&
        now.st_ino == seen.st_ino && now.st_size == seen.st_size) return;
    FILE *file = fopen(path, "r");
    if (!file) return;
    free(text);
    text = calloc(1, now.st_size + 2);
    text[0] = '\n';
    if (fread(text + 1, 1, now.st_size, file) != (size_t)now.st_size) text[1] = 0;
    fclose(file);
    seen = now;
}

/* The value of a key: 0 and the text, or the error code that the file asks for. A key that is not there: not supported. */
static R find(const char *key, char *value, size_t size) {
    char line[96];
    load();
    int n = snprintf(line, sizeof line, "\n%s ", key);
    char *at = text ? strstr(text, line) : NULL;
    if (!at) return NOTSUP;
    at += n;
    size_t length = strcspn(at, "\n");
    if (length >= size) length = size - 1;
    memcpy(value, at, length);
    value[length] = 0;
    if (!strcmp(value, "!hang")) for (;;) pause();
    if (!strcmp(value, "!absent")) return 13;
    return value[0] == '!' ? atoi(value + 1) : OK;
}

static R ask(dev *d, const char *question, char *value, size_t size) {
    char key[80];
    if (!inits) return UNINIT;
    if (d < devices || d >= devices + 64) return INVAL;
    snprintf(key, sizeof key, "%d", d->index);
    R r = find(key, value, size); /* "3 !15": the whole GPU */
    if (r != OK && r != NOTSUP) return r;
    snprintf(key, sizeof key, "%d.%s", d->index, question);
    return find(key, value, size);
}

/* The n-th number after the key; "-" where there is none. */
static R number(dev *d, const char *question, int n, U64 *out) {
    char value[4096], *next, *at = value;
    R r = ask(d, question, value, sizeof value);
    if (r) return r;
    for (char *word = strtok_r(at, " ", &next); word; word = strtok_r(NULL, " ", &next), n--)
        if (!n) { if (!strcmp(word, "-")) return NOTSUP; *out = strtoull(word, NULL, 0); return OK; }
    return INVAL;
}

static int count(void) {
    char value[64];
    return find("gpus", value, sizeof value) ? 0 : atoi(value);
}

static R system_text(const char *key, char *out, unsigned size) {
    char value[256];
    if (!inits) return UNINIT;
    R r = find(key, value, sizeof value);
    if (!r) snprintf(out, size, "%s", value);
    return r;
}

static R device_text(dev *d, const char *question, char *out, unsigned size) {
    char value[256];
    R r = ask(d, question, value, sizeof value);
    if (!r) snprintf(out, size, "%s", value);
    return r;
}

#define UINT(function, question, n) R function(dev *d, unsigned *v) { U64 u; R r = number(d, question, n, &u); if (!r) *v = u; return r; }
#define TEXT(function, question) R function(dev *d, char *out, unsigned size) { return device_text(d, question, out, size); }
#define PAIR(function, question) R function(dev *d, unsigned *a, unsigned *b) { \
    U64 x, y; R r = number(d, question, 0, &x); if (!r) r = number(d, question, 1, &y); if (!r) { *a = x; *b = y; } return r; }

R nvmlInitWithFlags(unsigned flags) {
    char value[64];
    (void)flags;
    for (int i = 0; i < 64; i++) devices[i].index = i;
    R r = find("driver", value, sizeof value); /* "driver !9": not loaded */
    if (r != OK && r != NOTSUP) return r;
    inits++;
    return OK;
}
R nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
R nvmlShutdown(void) { if (!inits) return UNINIT; inits--; return OK; }
const char *nvmlErrorString(R r) { return r == OK ? "Success" : "an error that only this library knows"; }
R nvmlSystemGetDriverVersion(char *out, unsigned size) { return system_text("driver_version", out, size); }
R nvmlSystemGetNVMLVersion(char *out, unsigned size) { return system_text("library_version", out, size); }
R nvmlSystemGetCudaDriverVersion_v2(int *version) {
    char value[64];
    int major, minor;
    R r = system_text("cuda_version", value, sizeof value);
    if (r) return r;
    if (sscanf(value, "%d.%d", &major, &minor) != 2) return 999;
    *version = major * 1000 + minor * 10;
    return OK;
}
R nvmlSystemGetConfComputeState(unsigned *state) {
    char value[64];
    R r = system_text("confidential_computing", value, sizeof value);
    return r ? r : sscanf(value, "%u %u %u", state, state + 1, state + 2) == 3 ? OK : 999;
}
R nvmlDeviceGetCount_v2(unsigned *n) { char value[64]; R r = system_text("gpus", value, sizeof value); if (!r) *n = atoi(value); return r; }
R nvmlDeviceGetHandleByIndex_v2(unsigned i, dev **d) {
    char key[16], value[64];
    if (!inits) return UNINIT;
    if ((int)i >= count()) return INVAL;
    *d = &devices[i];
    snprintf(key, sizeof key, "%u", i);
    R r = find(key, value, sizeof value);
    return r == NOTSUP ? OK : r;
}

TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetVbiosVersion, "vbios")

typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_info;
R nvmlDeviceGetPciInfo_v3(dev *d, pci_info *info) {
    char value[64];
    R r = device_text(d, "pci", value, sizeof value);
    if (r) return r;
    memset(info, 0, sizeof *info);
    if (sscanf(value, "%x:%x:%x", &info->domain, &info->bus, &info->device) != 3) return 999;
    snprintf(info->bus_id, sizeof info->bus_id, "%08X:%02X:%02X.0", info->domain, info->bus, info->device);
    return OK;
}

PAIR(nvmlDeviceGetEccMode, "ecc_mode")
R nvmlDeviceGetMemoryErrorCounter(dev *d, int kind, int life, int where, U64 *v) {
    char question[64];
    snprintf(question, sizeof question, "ecc_%s_%s_%s", life ? "aggregate" : "volatile", kind ? "uncorrected" : "corrected",
             where == 7 ? "sram" : "dram");
    return number(d, question, 0, v);
}
typedef struct { unsigned version; U64 counters[11]; unsigned exceeded; } sram_status;
R nvmlDeviceGetSramEccErrorStatus(dev *d, sram_status *s) { U64 u; R r = number(d, "sram_threshold_exceeded", 0, &u); if (!r) s->exceeded = u; return r; }
R nvmlDeviceGetRemappedRows(dev *d, unsigned *a, unsigned *b, unsigned *pending, unsigned *failed) {
    unsigned *out[] = {a, b, pending, failed};
    for (int i = 0; i < 4; i++) { U64 u; R r = number(d, "remapped_rows", i, &u); if (r) return r; *out[i] = u; }
    return OK;
}
R nvmlDeviceGetRowRemapperHistogram(dev *d, unsigned *values) {
    for (int i = 0; i < 5; i++) { U64 u; R r = number(d, "row_histogram", i, &u); if (r) return r; values[i] = u; }
    return OK;
}
R nvmlDeviceGetRetiredPages(dev *d, int cause, unsigned *n, U64 *pages) {
    U64 u;
    R r = number(d, "retired_pages", cause, &u);
    if (r) return r;
    unsigned room = *n;
    *n = u;
    if (!pages || room < u) return u ? SMALL : OK;
    for (unsigned i = 0; i < u; i++) pages[i] = 0x1000 * (i + 1);
    return OK;
}
UINT(nvmlDeviceGetRetiredPagesPendingStatus, "retired_pending", 0)

typedef struct { unsigned field, scope; int64_t timestamp, latency; unsigned type; R r; U64 value; } field_value;
R nvmlDeviceGetFieldValues(dev *d, int n, field_value *v) {
    char value[4096];
    R whole = ask(d, "name", value, sizeof value);
    if (whole) return whole;
    for (int i = 0; i < n; i++) {
        v[i].value = 0;
        v[i].type = 3;
        switch (v[i].field) {
        case 82: v[i].type = 1; v[i].r = number(d, "temperature_memory", 0, &v[i].value); break;
        case 230: v[i].type = 1; v[i].r = number(d, "recovery_action", 0, &v[i].value); break;
        case 197: v[i].r = number(d, "pcie_bytes", 0, &v[i].value); break;
        case 198: v[i].r = number(d, "pcie_bytes", 1, &v[i].value); break;
        default: v[i].r = NOTSUP;
        }
    }
    return OK;
}

R nvmlDeviceGetNvLinkState(dev *d, unsigned link, unsigned *state) { U64 u; R r = number(d, "nvlinks", link, &u); if (!r) *state = u; return r; }
R nvmlDeviceGetNvLinkErrorCounter(dev *d, unsigned link, int counter, U64 *v) {
    static const char *names[] = {"nvlink_replay", "nvlink_recovery", "nvlink_crc"};
    return counter > 2 ? NOTSUP : number(d, names[counter], link, v);
}
typedef struct { unsigned version; unsigned char cluster[16]; R status; unsigned clique; unsigned char state; unsigned health; } fabric_info;
R nvmlDeviceGetGpuFabricInfoV(dev *d, fabric_info *f) {
    U64 u[3];
    for (int i = 0; i < 3; i++) { R r = number(d, "fabric", i, &u[i]); if (r) return r; }
    f->state = u[0]; f->status = u[1]; f->health = u[2];
    return OK;
}
UINT(nvmlDeviceGetCurrPcieLinkGeneration, "pcie_now", 0)
UINT(nvmlDeviceGetCurrPcieLinkWidth, "pcie_now", 1)
UINT(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_max", 0)
UINT(nvmlDeviceGetMaxPcieLinkWidth, "pcie_max", 1)
UINT(nvmlDeviceGetPcieReplayCounter, "pcie_replays", 0)
R nvmlDeviceGetP2PStatus(dev *a, dev *b, int capability, unsigned *status) {
    U64 u;
    R r = number(a, capability == 2 ? "p2p_nvlink" : "p2p_read", b->index, &u);
    if (!r) *status = u;
    return r;
}

R nvmlDeviceGetClockInfo(dev *d, int clock, unsigned *v) { U64 u; R r = number(d, clock == 1 ? "clock_sm" : "clock_memory", 0, &u); if (!r) *v = u; return r; }
UINT(nvmlDeviceGetMaxClock, "clock_sm_max", 0)
R nvmlDeviceGetMaxClockInfo(dev *d, int clock, unsigned *v) { return clock == 1 ? nvmlDeviceGetMaxClock(d, v) : NOTSUP; }
R nvmlDeviceGetCurrentClocksThrottleReasons(dev *d, U64 *v) { return number(d, "throttle_reasons", 0, v); }
UINT(nvmlDeviceGetPerformanceState, "pstate", 0)
R nvmlDeviceGetTemperature(dev *d, int sensor, unsigned *v) { U64 u; R r = sensor ? INVAL : number(d, "temperature", 0, &u); if (!r) *v = u; return r; }
R nvmlDeviceGetTemperatureThreshold(dev *d, int which, unsigned *v) {
    static const char *names[] = {"temperature_shutdown", "temperature_slowdown", "temperature_memory_max"};
    U64 u;
    R r = which > 2 ? NOTSUP : number(d, names[which], 0, &u);
    if (!r) *v = u;
    return r;
}
typedef struct { unsigned version; int margin; } margin_info;
R nvmlDeviceGetMarginTemperature(dev *d, margin_info *m) { U64 u; R r = number(d, "temperature_margin", 0, &u); if (!r) m->margin = (int)u; return r; }
UINT(nvmlDeviceGetPowerUsage, "power", 0)
UINT(nvmlDeviceGetPowerManagementLimit, "power_limit", 0)
UINT(nvmlDeviceGetPowerManagementDefaultLimit, "power_limit_default", 0)
UINT(nvmlDeviceGetEnforcedPowerLimit, "power_limit_enforced", 0)
R nvmlDeviceGetUtilizationRates(dev *d, unsigned *rates) { U64 u; R r = number(d, "utilization", 0, &u); if (r) return r; rates[0] = u; r = number(d, "utilization", 1, &u); if (!r) rates[1] = u; return r; }
R nvmlDeviceGetMemoryInfo(dev *d, U64 *memory) { R r = number(d, "memory", 0, memory); if (!r) r = number(d, "memory", 1, memory + 2); if (!r) memory[1] = memory[0] - memory[2]; return r; }
UINT(nvmlDeviceGetPersistenceMode, "persistence", 0)
PAIR(nvmlDeviceGetMigMode, "mig_mode")
UINT(nvmlDeviceGetMaxMigDeviceCount, "mig_devices", 0)
R nvmlDeviceGetMigDeviceHandleByIndex(dev *d, unsigned i, dev **out) { U64 u; R r = number(d, "mig_devices", 0, &u); if (r) return r; if (i >= u) return NOTFOUND; *out = d; return OK; }
typedef struct { unsigned pid; U64 memory; unsigned gi, ci; } process_info;
R nvmlDeviceGetComputeRunningProcesses_v3(dev *d, unsigned *n, process_info *out) {
    char value[4096], *next;
    unsigned room = *n, found = 0;
    R r = ask(d, "processes", value, sizeof value); /* "pid:bytes pid:bytes"; "none" for none */
    if (r) return r;
    for (char *word = strtok_r(value, " ", &next); word; word = strtok_r(NULL, " ", &next)) {
        unsigned pid;
        U64 memory;
        if (sscanf(word, "%u:%llu", &pid, &memory) != 2) continue;
        if (out && found < room) out[found] = (process_info){pid, memory, 0xffffffff, 0xffffffff};
        found++;
    }
    *n = found;
    return found && (!out || room < found) ? SMALL : OK;
}

typedef struct { dev *device; U64 type, data; unsigned gi, ci; } event;
typedef struct { int devices, given[64]; } event_set;
R nvmlEventSetCreate(event_set **set) { *set = calloc(1, sizeof **set); return OK; }
R nvmlEventSetFree(event_set *set) { free(set); return OK; }
R nvmlDeviceRegisterEvents(dev *d, U64 types, event_set *set) { char v[256]; (void)types; (void)set; return ask(d, "name", v, sizeof v); }
R nvmlEventSetWait_v2(event_set *set, event *e, unsigned milliseconds) {
    for (unsigned waited = 0;; waited += 10) {
        for (int i = 0; i < count(); i++) {
            U64 code;
            if (number(&devices[i], "events", set->given[i], &code)) continue;
            set->given[i]++;
            *e = (event){&devices[i], 8, code, 0xffffffff, 0xffffffff};
            return OK;
        }
        if (waited >= milliseconds) return TIMEOUT;
        usleep(10000);
    }
}
