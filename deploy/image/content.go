package main

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const (
	// user runs the binary: no name and no file in the image belongs to it.
	user = "65532:65532"
	// rootsFile is where crypto/x509 and OpenSSL look for roots.
	rootsFile = "etc/ssl/certs/ca-certificates.crt"
	// label begins the names of the labels that all images have.
	label = "org.opencontainers.image."
)

// always is the time of everything in an image: the true ones would make each
// build another.
var always = time.Unix(0, 0).UTC()

// content is what an image is made from.
type content struct {
	binary                           string // path of the file
	title, version, source, licenses string
}

// image is the same for the same content, wherever and whenever it is made.
func (c content) image() (v1.Image, error) {
	program, err := os.ReadFile(c.binary)
	if err != nil {
		return nil, err
	}
	info, err := inspect(program)
	if err != nil {
		return nil, err
	}
	name := filepath.Base(c.binary)
	layer, err := layerOf(name, program)
	if err != nil {
		return nil, err
	}
	img, err := mutate.Append(empty.Image, mutate.Addendum{Layer: layer,
		History: v1.History{Created: v1.Time{Time: always}, CreatedBy: "static binary and roots on an empty base"}})
	if err != nil {
		return nil, fmt.Errorf("append the layer: %w", err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the image's configuration: %w", err)
	}
	config = config.DeepCopy()
	c.describe(config, name, info)
	return mutate.ConfigFile(img, config)
}

// describe says what runs, as whom, and what it is.
func (c content) describe(config *v1.ConfigFile, name string, info platform) {
	config.OS, config.Architecture, config.Created = "linux", info.arch, v1.Time{Time: always}
	config.Config = v1.Config{
		User: user, Entrypoint: []string{"/" + name}, WorkingDir: "/",
		Labels: map[string]string{
			label + "title":    or(c.title, name),
			label + "version":  c.version,
			label + "source":   or(c.source, info.module),
			label + "licenses": c.licenses,
		},
	}
}

// platform is what a binary tells of itself.
type platform struct{ arch, module string }

// inspect refuses what cannot run on an empty base.
func inspect(program []byte) (platform, error) {
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return platform{}, fmt.Errorf("it is not for Linux: %w", err)
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			return platform{}, errors.New("it is linked dynamically, and an empty base has no libraries: build it with CGO_ENABLED=0")
		}
	}
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return platform{}, fmt.Errorf("read what it was built for: %w", err)
	}
	found := platform{module: info.Main.Path}
	for _, s := range info.Settings {
		switch {
		case s.Key == "GOARCH":
			found.arch = s.Value
		case s.Key == "GOOS" && s.Value != "linux":
			return platform{}, fmt.Errorf("it is for %s, not for Linux", s.Value)
		}
	}
	if found.arch == "" {
		return platform{}, errors.New("it does not tell its architecture: build it with the go command")
	}
	return found, nil
}

// layerOf is the image's only layer.
func layerOf(name string, program []byte) (v1.Layer, error) {
	var buffer bytes.Buffer
	if err := writeTar(&buffer, []entry{{name, program}, {rootsFile, rootsPEM()}}); err != nil {
		return nil, fmt.Errorf("make the layer: %w", err)
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buffer.Bytes())), nil
	}, tarball.WithCompressedCaching)
}
