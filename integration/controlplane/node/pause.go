package node

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// PauseImage is the image of the process that holds a pod's namespaces.
const PauseImage = "controlplane/pause:1"

// pauseCode waits for a signal, for ever: pause(2) in a loop, for amd64.
var pauseCode = []byte{
	0xb8, 34, 0, 0, 0, // mov eax, 34
	0x0f, 0x05, // syscall
	0xeb, 0xf7, // jmp back to the mov
}

// pauseProgram is an ELF executable of nothing but pauseCode.
func pauseProgram() []byte {
	const base, header, segment = 0x400000, 64, 56
	type elf struct {
		Ident                                        [16]byte
		Type, Machine                                uint16
		Version                                      uint32
		Entry, Segments, Sections                    uint64
		Flags                                        uint32
		Size, SegmentSize, SegmentCount              uint16
		SectionSize, SectionCount, SectionNamesIndex uint16
		// The one segment.
		Kind, Access                                       uint32
		Offset, Virtual, Physical, InFile, InMemory, Align uint64
	}
	length := uint64(header + segment + len(pauseCode))
	var out bytes.Buffer
	_ = binary.Write(&out, binary.LittleEndian, elf{ // a buffer never fails to write
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: 2, Machine: 62, Version: 1,
		Entry: base + header + segment, Segments: header,
		Size: header, SegmentSize: segment, SegmentCount: 1,
		Kind: 1, Access: 5, Virtual: base, Physical: base, InFile: length, InMemory: length, Align: 0x1000,
	})
	return append(out.Bytes(), pauseCode...)
}

// WritePauseImage writes PauseImage in Docker's format.
func WritePauseImage(w io.Writer) error {
	layer, err := archive(map[string][]byte{"pause": pauseProgram()}, "pause")
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/pause"}, "User": "65535:65535"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{PauseImage}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	image, err := archive(map[string][]byte{"config.json": config, "layer.tar": layer, "manifest.json": manifest}, "config.json", "layer.tar", "manifest.json")
	if err != nil {
		return err
	}
	_, err = w.Write(image)
	return err
}

// archive is a tar of files, in this order.
func archive(files map[string][]byte, order ...string) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range order {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(files[name]))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(files[name]); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}
