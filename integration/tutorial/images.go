package tutorial

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// httpbinPackage is the command of the server, which httpbin/go.mod names.
const httpbinPackage = "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin"

// images makes the archives of all images that the pods need, and the programs in
// them, in a folder that it makes.
func images(ctx context.Context, checkout, dir string) (archives []string, err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	for binary, from := range map[string]struct{ folder, pkg string }{
		"citadel":    {checkout, "./cmd/citadel"},
		"node_agent": {checkout, "./cmd/node_agent"},
		"go-httpbin": {filepath.Join(checkout, "integration/tutorial/httpbin"), httpbinPackage},
	} {
		path := filepath.Join(dir, binary)
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", "grpcnotrace", "-o", path, from.pkg)
		build.Dir, build.Env = from.folder, append(os.Environ(), "CGO_ENABLED=0")
		pack := exec.CommandContext(ctx, "go", "run", "-trimpath", "./deploy/image", "-binary", path, "-name", binary+":latest", "-o", path+".tar")
		pack.Dir = checkout
		for _, cmd := range []*exec.Cmd{build, pack} {
			if out, err := cmd.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
			}
		}
		archives = append(archives, path+".tar")
	}
	path := filepath.Join(dir, "curl.tar")
	return append(archives, path), packPrograms(ctx, path, "curl:latest", "/usr/bin/curl", "/usr/bin/sleep")
}

// packPrograms makes an image of programs of this machine with the libraries that
// they load.
func packPrograms(ctx context.Context, archive, reference string, programs ...string) error {
	files, err := withLibraries(ctx, programs)
	if err != nil {
		return err
	}
	var layer bytes.Buffer
	if err := writeFiles(&layer, files); err != nil {
		return fmt.Errorf("pack %s: %w", reference, err)
	}
	packed, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		return fmt.Errorf("pack %s: %w", reference, err)
	}
	image, err := mutate.AppendLayers(empty.Image, packed)
	if err == nil {
		image, err = described(image, v1.Config{User: "65532:65532", Entrypoint: programs[:1]})
	}
	tag, tagErr := name.NewTag(reference)
	if err = errors.Join(err, tagErr); err == nil {
		err = tarball.WriteToFile(archive, tag, image)
	}
	if err != nil {
		return fmt.Errorf("make image %s: %w", reference, err)
	}
	return nil
}

// described is an image with what is to be run.
func described(image v1.Image, run v1.Config) (v1.Image, error) {
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config = "linux", runtime.GOARCH, run
	return mutate.ConfigFile(image, config)
}

// withLibraries lists files with the libraries, and their loader, that ldd finds.
func withLibraries(ctx context.Context, programs []string) ([]string, error) {
	files := slices.Clone(programs)
	for _, program := range programs {
		out, err := exec.CommandContext(ctx, "ldd", program).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("libraries of %s: %w: %s: install Debian's curl and coreutils", program, err, out)
		}
		for line := range strings.Lines(string(out)) {
			for word := range strings.FieldsSeq(line) {
				if strings.HasPrefix(word, "/") {
					files = append(files, word)
				}
			}
		}
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

// writeFiles packs files of this machine under their own names; of links, what
// they lead to.
func writeFiles(w io.Writer, files []string) error {
	archive := tar.NewWriter(w)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(file, "/"), Mode: 0o755, Size: int64(len(text))}); err != nil {
			return err
		}
		if _, err := archive.Write(text); err != nil {
			return err
		}
	}
	return archive.Close()
}
