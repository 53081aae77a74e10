package wallclock

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Max is the largest offset, in either direction.
const Max = 20 * 365 * 24 * time.Hour

// Validate says what is wrong with an offset: it is whole seconds, within Max.
func Validate(offset time.Duration) error {
	if offset%time.Second != 0 || offset > Max || offset < -Max {
		return fmt.Errorf("offset %s: use whole seconds, at most %d hours, as in +1h or -90s", offset, int(Max.Hours()))
	}
	return nil
}

// function of the vDSO: its name, and the code that replaces it. Between before and after stands, in four bytes, how far the offset is
// from there.
type function struct {
	name          string
	before, after []byte
}

const (
	word     = 8 // bytes of the offset
	distance = 4 // bytes of a relative address
	align    = 16
)

// piece is what stands at a place of the vDSO.
type piece struct {
	at  uint64
	old []byte // the kernel's
	new []byte // ours
}

// image says what to write into a vDSO, which is the same in every process of the machine.
type image struct {
	offset uint64  // where the offset is kept
	code   piece   // the replacements, behind everything else
	jumps  []piece // to them, at the begin of each function
}

// own reads the vDSO of this process, which nobody has written to.
func own() (image, error) {
	if len(functions) == 0 {
		return image{}, fmt.Errorf("clocks cannot be changed on %s, on amd64 only", runtime.GOARCH)
	}
	start, end, err := mapped("/proc/self/maps")
	if err != nil {
		return image{}, err
	}
	mem, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return image{}, err
	}
	defer mem.Close()
	raw := make([]byte, end-start)
	if _, err := mem.ReadAt(raw, int64(start)); err != nil {
		return image{}, fmt.Errorf("read the vDSO: %w", err)
	}
	img, err := plan(raw)
	if err != nil {
		return image{}, err
	}
	// A try where nothing is: some kernels are set up to let nobody write to code.
	if _, err := mem.WriteAt(make([]byte, word), int64(start+img.offset)); err != nil {
		return image{}, fmt.Errorf("this kernel lets nobody write to the code of a process (see proc_mem.force_override): %w", err)
	}
	return img, nil
}

// plan finds the functions, and room for what replaces them: the rest of the last page, which is empty.
func plan(raw []byte) (image, error) {
	f, err := elf.NewFile(bytes.NewReader(raw))
	if err != nil {
		return image{}, fmt.Errorf("the vDSO: %w", err)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return image{}, fmt.Errorf("symbols of the vDSO: %w", err)
	}
	used := uint64(len(bytes.TrimRight(raw, "\x00")))
	for _, p := range f.Progs {
		used = max(used, p.Off+p.Filesz)
	}
	img := image{offset: (used + align - 1) / align * align}
	img.code.at = img.offset + word
	for _, fn := range functions {
		i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == fn.name })
		if i < 0 {
			return image{}, fmt.Errorf("this kernel's vDSO has no %s", fn.name)
		}
		at, to := symbols[i].Value, img.code.at+uint64(len(img.code.new))
		begin := binary.LittleEndian.AppendUint32(slices.Clone(jump), uint32(to-at-uint64(len(jump))-distance))
		if at+uint64(len(begin)) > used || symbols[i].Size < uint64(len(begin)) {
			return image{}, fmt.Errorf("%s of this kernel's vDSO is too short: %d bytes", fn.name, symbols[i].Size)
		}
		img.jumps = append(img.jumps, piece{at, slices.Clone(raw[at : at+uint64(len(begin))]), begin})
		after := to + uint64(len(fn.before)) + distance
		img.code.new = append(append(img.code.new, fn.before...), binary.LittleEndian.AppendUint32(nil, uint32(img.offset-after))...)
		img.code.new = append(img.code.new, fn.after...)
	}
	img.code.old = make([]byte, len(img.code.new))
	if end := img.code.at + uint64(len(img.code.new)); end > uint64(len(raw)) {
		return image{}, fmt.Errorf("this kernel's vDSO has no room: %d bytes are needed behind its %d", end-used, used)
	}
	return img, nil
}

// mapped finds the vDSO in a file like /proc/PID/maps.
func mapped(file string) (start, end uint64, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			if _, err := fmt.Sscanf(line, "%x-%x", &start, &end); err != nil {
				return 0, 0, fmt.Errorf("%s: %w", file, err)
			}
			return start, end, nil
		}
	}
	return 0, 0, fmt.Errorf("%s: no vDSO", file)
}

// Program tells one program that a process runs from the next: by where its vDSO is, which an exec draws anew. 0 where the process has
// ended, or is in the middle of an exec.
func Program(pid int) uint64 {
	const sysinfoEHDR = 33
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", pid))
	if err != nil {
		return 0
	}
	for ; len(b) >= 2*word; b = b[2*word:] {
		if binary.NativeEndian.Uint64(b) == sysinfoEHDR {
			return binary.NativeEndian.Uint64(b[word:])
		}
	}
	return 0
}
