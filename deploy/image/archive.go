package main

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// entry is a file of an archive.
type entry struct {
	name string
	data []byte
}

// archive writes an image in two forms that share their blobs: an OCI image
// layout, which has the manifest and so the digest, and the list of docker save
// for those who read no other.
func archive(w io.Writer, tag name.Tag, img v1.Image) error {
	manifest, err := img.RawManifest()
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	parsed, err := img.Manifest()
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	index, err := indexOf(tag, img)
	if err != nil {
		return err
	}
	listed := tarball.Descriptor{Config: blob(parsed.Config.Digest), RepoTags: []string{tag.String()}}
	entries := []entry{{blob(parsed.Config.Digest), config}, {blob(index.Manifests[0].Digest), manifest}}
	for _, l := range parsed.Layers {
		data, err := layerData(img, l.Digest)
		if err != nil {
			return fmt.Errorf("layer: %w", err)
		}
		listed.Layers = append(listed.Layers, blob(l.Digest))
		entries = append(entries, entry{blob(l.Digest), data})
	}
	for file, content := range map[string]any{"index.json": index, "manifest.json": tarball.Manifest{listed}} {
		data, err := json.Marshal(content)
		if err != nil {
			return fmt.Errorf("encode %s: %w", file, err)
		}
		entries = append(entries, entry{file, data})
	}
	entries = append(entries, entry{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)})
	return writeTar(w, entries)
}

// blob is where a layout has what the hash stands for.
func blob(hash v1.Hash) string { return path.Join("blobs", hash.Algorithm, hash.Hex) }

func layerData(img v1.Image, digest v1.Hash) ([]byte, error) {
	layer, err := img.LayerByDigest(digest)
	if err != nil {
		return nil, err
	}
	r, err := layer.Compressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// indexOf names the only image of a layout: for containerd in full, without the
// alias that stands before the default registry.
func indexOf(tag name.Tag, img v1.Image) (*v1.IndexManifest, error) {
	descriptor, err := partial.Descriptor(img)
	if err != nil {
		return nil, fmt.Errorf("describe the image: %w", err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	descriptor.Platform = config.Platform()
	descriptor.Annotations = map[string]string{
		"io.containerd.image.name": strings.TrimPrefix(tag.Name(), "index."),
		label + "ref.name":         tag.TagStr(),
	}
	return &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{*descriptor}}, nil
}

// writeTar writes files in the order of their names, with the folders that they
// need. All of it is root's; everybody may read and run it, and nobody write.
func writeTar(w io.Writer, entries []entry) error {
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	archive, made := tar.NewWriter(w), map[string]bool{}
	for _, e := range entries {
		for _, dir := range above(e.name) {
			if !made[dir] {
				if err := archive.WriteHeader(&tar.Header{Format: tar.FormatUSTAR, Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: always}); err != nil {
					return fmt.Errorf("add %s: %w", dir, err)
				}
				made[dir] = true
			}
		}
		header := tar.Header{Format: tar.FormatUSTAR, Typeflag: tar.TypeReg, Name: e.name, Mode: 0o555, Size: int64(len(e.data)), ModTime: always}
		if err := archive.WriteHeader(&header); err != nil {
			return fmt.Errorf("add %s: %w", e.name, err)
		}
		if _, err := archive.Write(e.data); err != nil {
			return fmt.Errorf("add %s: %w", e.name, err)
		}
	}
	return archive.Close()
}

// above are the folders of a file, the outermost first.
func above(name string) []string {
	var dirs []string
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
	}
	slices.Reverse(dirs)
	return dirs
}
