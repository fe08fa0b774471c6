package main

import (
	"archive/tar"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// root is the top of the repository.
const root = "../.."

// copySource copies what make image needs from a checkout, and nothing that tells
// where it comes from.
func copySource(t *testing.T, root string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"ca", "cmd", "nodeagent", "proto", "secretcontroller", "deploy/image"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(root, name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum", "Makefile"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// makeImages runs make image in a copy of a checkout, and returns the digests that it
// prints, by image, and the folder that it makes files in.
func makeImages(t *testing.T, source, version string) (digests map[string]string, bin string) {
	t.Helper()
	dir := copySource(t, source)
	cmd := exec.Command("make", "--no-print-directory", "image", "VERSION="+version)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKEOVERRIDES=")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("make image: %v", err)
	}
	digests = map[string]string{}
	for line := range strings.Lines(string(out)) {
		image, digest, _ := strings.Cut(strings.TrimSpace(line), " ")
		digests[image] = digest
	}
	return digests, filepath.Join(dir, "bin")
}

func load(t *testing.T, path, tag string) v1.Image {
	t.Helper()
	ref, err := name.NewTag(tag)
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(path, &ref)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// indexIn is the index of an archive's layout, each of whose blobs is what its
// name says.
func indexIn(t *testing.T, path string) v1.IndexManifest {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var index v1.IndexManifest
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return index
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if hash, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok && hash != "" && hash != fmt.Sprintf("%x", sha256.Sum256(data)) {
			t.Errorf("%s holds something else", h.Name)
		}
		if h.Name == "index.json" {
			if err := json.Unmarshal(data, &index); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// unpack returns the files of an image, and puts them into a folder.
func unpack(t *testing.T, img v1.Image) (dir string, files map[string]tar.Header) {
	t.Helper()
	dir, files = t.TempDir(), map[string]tar.Header{}
	layers := mutate.Extract(img)
	defer layers.Close()
	for r := tar.NewReader(layers); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir, files
		}
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = *h
		path := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o755)
		} else {
			err = writeFrom(path, r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func writeFrom(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

func TestImagesAreReproducible(t *testing.T) {
	source := copySource(t, root) // people may work on the original
	first, firstFiles := makeImages(t, source, "v1.2.3")
	second, secondFiles := makeImages(t, source, "v1.2.3")
	other, _ := makeImages(t, source, "v1.2.4")
	for _, program := range []string{"citadel", "node_agent"} {
		file, tag := program+".tar", program+":latest"
		if first[tag] != second[tag] || sum(t, filepath.Join(firstFiles, file)) != sum(t, filepath.Join(secondFiles, file)) {
			t.Errorf("two builds in two folders: %s and %s", first, second)
		}
		img := load(t, filepath.Join(firstFiles, file), tag)
		if digest, err := img.Digest(); err != nil || digest.String() != first[tag] {
			t.Errorf("the digest of %s is %s (%v), make image printed %s", program, digest, err, first)
		}
		index := indexIn(t, filepath.Join(firstFiles, file)).Manifests[0]
		if index.Digest.String() != first[tag] || !strings.HasSuffix(index.Annotations["io.containerd.image.name"], ".io/library/"+tag) {
			t.Errorf("the layout has %+v", index)
		}
		if other[tag] == first[tag] {
			t.Errorf("another version of %s has the same digest", program)
		}
		checkImage(t, img, program, "v1.2.3")
	}
}

func sum(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// checkImage looks at what the image of a program holds and how it runs.
func checkImage(t *testing.T, img v1.Image, program, version string) {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.OS != "linux" || config.Architecture != "amd64" {
		t.Errorf("it is for %s/%s", config.OS, config.Architecture)
	}
	want := v1.Config{User: "65532:65532", Entrypoint: []string{"/" + program}, WorkingDir: "/", Labels: labels(program, version)}
	if diff := cmp.Diff(want, config.Config); diff != "" {
		t.Error(diff)
	}
	dir, files := unpack(t, img)
	wantFiles := []string{"etc", "etc/ssl", "etc/ssl/certs", rootsFile, program} // no shell, no libraries
	slices.Sort(wantFiles)
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, wantFiles) {
		t.Errorf("it holds %v, want %v", got, wantFiles)
	}
	for name, h := range files {
		if h.Uid != 0 || h.Gid != 0 || h.Mode&0o022 != 0 || h.Mode&0o6000 != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s: owner %d, mode %o, time %s", name, h.Uid, h.Mode, h.ModTime)
		}
	}
	out, err := exec.Command(filepath.Join(dir, program), "version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), version) {
		t.Errorf("%s version says %q (%v)", program, out, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, rootsFile))
	if pool := x509.NewCertPool(); err != nil || !pool.AppendCertsFromPEM(text) {
		t.Errorf("no roots in %s: %v", rootsFile, err)
	}
	if n := strings.Count(string(text), "BEGIN CERTIFICATE"); n < 100 {
		t.Errorf("%d public roots", n)
	}
}

func labels(title, version string) map[string]string {
	return map[string]string{label + "title": title, label + "version": version, label + "source": "citadel", label + "licenses": "Apache-2.0"}
}

// program builds a small one.
func program(t *testing.T, env ...string) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() { println(\"here\") }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "workload"), source)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return filepath.Join(dir, "workload")
}

func TestAnotherBinaryOfAnotherArchitecture(t *testing.T) {
	out := filepath.Join(t.TempDir(), "w.tar")
	var digest strings.Builder
	args := []string{"-binary", program(t, "GOARCH=arm64"), "-name", "registry.example.org/tests/workload:v2", "-o", out, "-title", "Workload", "-version", "v2", "-source", "citadel"}
	if err := run(args, &digest, io.Discard); err != nil {
		t.Fatal(err)
	}
	img := load(t, out, "registry.example.org/tests/workload:v2")
	if index := indexIn(t, out).Manifests[0]; index.Digest.String() != strings.TrimSpace(digest.String()) ||
		index.Annotations["io.containerd.image.name"] != "registry.example.org/tests/workload:v2" || index.Platform.Architecture != "arm64" {
		t.Errorf("the layout has %+v", index)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	want := v1.Config{User: user, Entrypoint: []string{"/workload"}, WorkingDir: "/", Labels: labels("Workload", "v2")}
	if diff := cmp.Diff(want, config.Config); diff != "" || config.Architecture != "arm64" {
		t.Error(config.Architecture, diff)
	}
	if !strings.HasPrefix(digest.String(), "sha256:") {
		t.Errorf("printed %q", digest.String())
	}
}

func TestWhatCannotRunIsRefused(t *testing.T) {
	dynamic, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := program(t)
	for want, args := range map[string][]string{
		"linked dynamically": {"-binary", dynamic},
		"not for Linux":      {"-binary", text},
		"is for freebsd":     {"-binary", program(t, "GOOS=freebsd", "GOARCH=amd64")},
		"no such file":       {"-binary", filepath.Join(t.TempDir(), "nothing")},
		"-name":              {"-binary", good, "-name", "Not A Name"},
		"-binary FILE":       {},
		"write the image":    {"-binary", good, "-o", filepath.Join(t.TempDir(), "no", "folder.tar")},
		"no arguments":       {"-binary", good, "further"},
	} {
		if len(args) > 0 && !slices.Contains(args, "-o") {
			args = slices.Concat([]string{"-o", filepath.Join(t.TempDir(), "x.tar")}, args)
		}
		if err := run(args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

// The Dockerfile makes an image of the same kind.
func TestDockerfileAgrees(t *testing.T) {
	text, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nFROM scratch\n", "\nUSER " + user + "\n", `ENTRYPOINT ["/citadel"]`, "/" + rootsFile + "\n", "CGO_ENABLED=0", "-trimpath", "ARG TARGETARCH",
		"ARG COMMIT\n", " -X citadel/cmd/internal/daemon.version=$VERSION -X citadel/cmd/internal/daemon.commit=$COMMIT\""} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the Dockerfile does not have %q", want)
		}
	}
	for key := range labels("", "") {
		if !strings.Contains(string(text), key+"=") {
			t.Errorf("the Dockerfile has no label %s", key)
		}
	}
}
