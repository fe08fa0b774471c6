// Command image makes a container image of one static binary, without Docker:
// the binary and the roots of public CAs on an empty base, to be run by a user
// that is not root. It prints the image's digest.
//
// It refuses what would not run there: a binary that is linked dynamically or
// is not for Linux. Nothing of the machine or of the moment gets into the image,
// so that whoever builds the same source with the same Go gets the same digest.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// run is the whole program but for the process around it.
func run(args []string, stdout, stderr io.Writer) error {
	var c content
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&c.binary, "binary", "", "static Linux `file`, the image's entry point")
	reference := flags.String("name", "", "`reference` of the image; empty: the binary's name, with tag latest")
	out := flags.String("o", "", "`file` to write, an OCI layout and docker save in one; empty: the binary's name with .tar")
	flags.StringVar(&c.title, "title", "", "label title; empty: the binary's name")
	flags.StringVar(&c.version, "version", "development", "label version")
	flags.StringVar(&c.source, "source", "", "label source, a URL; empty: the Go module of the binary")
	flags.StringVar(&c.licenses, "licenses", "Apache-2.0", "label licenses, an SPDX `expression`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if c.binary == "" || flags.NArg() > 0 {
		return fmt.Errorf("-binary FILE is needed, and no arguments but flags: got %q", flags.Args())
	}
	base := filepath.Base(c.binary)
	tag, err := name.NewTag(or(*reference, base+":latest"))
	if err != nil {
		return fmt.Errorf("-name: %w", err)
	}
	img, err := c.image()
	if err != nil {
		return fmt.Errorf("make an image of %s: %w", c.binary, err)
	}
	if err := write(or(*out, base+".tar"), tag, img); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	digest, err := img.Digest()
	if err != nil {
		return fmt.Errorf("digest of the image: %w", err)
	}
	fmt.Fprintln(stdout, digest)
	return nil
}

// or returns text, or otherwise where there is none.
func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// write puts the image at path whole or not at all.
func write(path string, tag name.Tag, img v1.Image) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".image-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already where all went well
	defer f.Close()           // its error counts below
	if err := archive(f, tag, img); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
