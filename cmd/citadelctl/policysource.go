package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"citadel/ca/policy"
	"citadel/cmd/citadelctl/mesh"
)

// check reports all that is wrong with the flags at once.
func (f *meshFlags) check(flags *pflag.FlagSet, others ...error) error {
	_, err := parseGeneration(f.generation)
	problems := append(others, err, f.citadelFlags.check())
	contradict := func(with string, names ...string) {
		for _, name := range names {
			if flags.Changed(name) {
				problems = append(problems, fmt.Errorf("--%s contradicts --%s: they name two meshes", name, with))
			}
		}
	}
	switch {
	case len(f.objects) > 0:
		contradict("objects", "kubeconfig", "context", "request-timeout", citadelFlag)
	case f.citadel != "":
		contradict(citadelFlag, "kubeconfig", "context", storageFlag)
	}
	if f.meshConfig != "" && len(f.objects) == 0 {
		problems = append(problems, errors.New("--mesh-config goes with --objects: give both"))
	}
	return errors.Join(problems...)
}

// read reads the mesh that the flags name.
func (f *meshFlags) read(cmd *cobra.Command, others ...error) (*meshWorld, error) {
	if err := f.check(cmd.Flags(), others...); err != nil {
		return nil, usageError(cmd, err)
	}
	g, _ := parseGeneration(f.generation) // checked
	switch {
	case len(f.objects) > 0:
		objects, err := readMesh(cmd, f.storage, f.objects, f.meshConfig)
		if err != nil {
			return nil, err
		}
		return &meshWorld{World: mesh.NewWorld(g, objects), now: time.Now()}, nil
	case f.citadel != "":
		return f.fromCitadel(cmd, g)
	}
	c, err := f.connect()
	if err != nil {
		return nil, err
	}
	return c.mesh(cmd, f.storage, g)
}

// meshFile is a text of objects, and its name in errors.
type meshFile struct {
	name string
	text []byte
}

// readMesh reads the objects of files and a mesh config. That of a ConfigMap is
// in namespace storage.
func readMesh(cmd *cobra.Command, storage string, paths []string, meshConfig string) ([]policy.Object, error) {
	objects, err := decodeFiles(cmd, storage, paths)
	if err != nil || meshConfig == "" {
		return objects, err
	}
	if slices.ContainsFunc(objects, func(o policy.Object) bool { return o.Ref().Kind == policy.KindMeshConfig }) {
		return nil, usageError(cmd, errors.New("--mesh-config contradicts ConfigMap istio of the objects: give one of them"))
	}
	config, err := readMeshConfig(cmd, meshConfig)
	if err != nil {
		return nil, err
	}
	return append(objects, config), nil
}

// readMeshConfig reads a mesh config, or the ConfigMap that holds one.
func readMeshConfig(cmd *cobra.Command, path string) (*policy.MeshConfig, error) {
	file, err := readPath(cmd, path)
	if err != nil {
		return nil, fmt.Errorf("read the mesh config: %w", err)
	}
	if objects, err := policy.Decode(file.name, file.text); err == nil && len(objects) == 1 {
		if config, is := objects[0].(*policy.MeshConfig); is {
			return config, nil
		}
	}
	return policy.DecodeMeshConfig(file.name, file.text)
}

// decodeFiles reads the objects of files; all that is wrong is told at once. The
// mesh config is in namespace storage: that of others is ignored, and told.
func decodeFiles(cmd *cobra.Command, storage string, paths []string) ([]policy.Object, error) {
	files, err := readPaths(cmd, paths)
	if err != nil {
		return nil, err
	}
	var all []policy.Object
	var problems []error
	passed := 0
	for _, file := range files {
		objects, some, err := policy.DecodeDump(file.name, file.text)
		all, passed, problems = append(all, objects...), passed+some, append(problems, err)
	}
	if passed > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "citadelctl: %s passed over: of kinds that do not decide about mTLS\n", count(passed, "object"))
	}
	all, ignored, err := policy.OfMesh(storage, all)
	for _, text := range ignored {
		fmt.Fprintf(cmd.ErrOrStderr(), "citadelctl: warning: %s; --%s says another one\n", printable(text), storageFlag)
	}
	return all, errors.Join(append(problems, err)...)
}

// readPaths reads files, the files of folders, and standard input for "-".
func readPaths(cmd *cobra.Command, paths []string) (files []meshFile, err error) {
	for _, path := range paths {
		names := []string{path}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			if names, err = filesIn(path); err != nil {
				return nil, err
			}
		}
		for _, name := range names {
			file, err := readPath(cmd, name)
			if err != nil {
				return nil, err
			}
			files = append(files, file)
		}
	}
	return files, nil
}

func filesIn(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fileError(err)
	}
	for _, e := range entries {
		if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) && !e.IsDir() {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	if len(names) == 0 {
		return nil, codedError{exitNotFound, fmt.Errorf("folder %s has no .yaml, .yml or .json files", dir)}
	}
	return names, nil
}

// readPath reads one file, or standard input, but not one without end.
func readPath(cmd *cobra.Command, path string) (meshFile, error) {
	if path == "-" {
		text, err := readWhile(cmd.Context(), func() ([]byte, error) { return readMost(cmd.InOrStdin(), "standard input") })
		return meshFile{"standard input", text}, err
	}
	text, err := readWhile(cmd.Context(), func() ([]byte, error) {
		file, err := os.Open(path) // of a pipe, it waits for whoever writes
		if err != nil {
			return nil, fileError(err)
		}
		defer file.Close()
		return readMost(file, path)
	})
	return meshFile{path, text}, err
}

func readMost(r io.Reader, name string) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, policy.MaxInput+1))
	switch {
	case err != nil:
		return nil, fileError(err)
	case len(text) > policy.MaxInput:
		return nil, fmt.Errorf("%s is larger than %d MiB", strings.TrimPrefix(name, "./"), policy.MaxInput>>20)
	}
	return policy.Dense(name, text)
}
