package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// certificateFiles is a serving certificate in files, read anew when one of
// them has changed. It looks at each handshake: no watch can miss that.
type certificateFiles struct {
	cert, key string
	tell      func(error)

	mu     sync.Mutex
	loaded *tls.Certificate // guarded by mu
	stamp  [2]fileStamp     // guarded by mu: of what was last tried
}

type fileStamp struct {
	changed time.Time
	size    int64
}

func (f *certificateFiles) stamps() (s [2]fileStamp, err error) {
	for i, path := range []string{f.cert, f.key} {
		info, err := os.Stat(path)
		if err != nil {
			return s, err
		}
		s[i] = fileStamp{info.ModTime(), info.Size()}
	}
	return s, nil
}

// load reads the files if they have changed since they were last tried.
func (f *certificateFiles) load() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	stamp, err := f.stamps()
	if err != nil || stamp == f.stamp {
		return err
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", f.cert, f.key, err) // half-written, perhaps: tried again at the next handshake
	}
	f.loaded, f.stamp = &pair, stamp
	return nil
}

// ForHandshake is the certificate of now; of files that cannot be used, that of
// before.
func (f *certificateFiles) ForHandshake(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if err := f.load(); err != nil {
		f.tell(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.loaded, nil
}
