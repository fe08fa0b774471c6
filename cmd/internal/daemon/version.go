package daemon

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version and commit are set when the binary is linked. Without the second the
// go command's stamp counts, where there is one.
var version, commit = "development", ""

// Version says what a binary was built from.
type Version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
}

// BuildVersion is this binary's.
func BuildVersion() Version {
	v := Version{Version: version, Commit: commit, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok && v.Commit == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	return v
}

// String is the version on one line.
func (v Version) String() string {
	commit := v.Commit
	if commit == "" { // built outside a repository
		commit = "unknown"
	}
	return fmt.Sprintf("%s (commit %s, %s)", v.Version, commit, v.Go)
}
