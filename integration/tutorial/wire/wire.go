// Package wire sees what somebody sees who listens on a network: whether the words
// of a call can be read, and whether it went by TLS of sidecars.
//
// It needs root, and only listens. It takes nothing apart but IPv4, TCP and the
// beginning of TLS.
package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Sight is what somebody sees of a call who listens on the network.
type Sight uint8

// What a listener can see.
const (
	Anything  Sight = iota // nobody looked
	Plain                  // what was said
	MutualTLS              // TLS that a sidecar began, and not what was said
	OwnTLS                 // TLS of the programs themselves, or nothing
	Both                   // a sidecar's TLS, and what was said
)

// String is for people.
func (s Sight) String() string {
	return [...]string{"anything", "plain text", "mutual TLS of sidecars", "no plain text, and no TLS of sidecars", "TLS of sidecars and plain text"}[s]
}

// Tap listens to all that is sent over one network namespace. One goroutine uses it.
type Tap struct {
	socket    int
	workloads []netip.Prefix
	except    uint16
}

// Open begins to listen in the network of a process. TLS counts that begins at an
// address of workloads, but not to one port, where they have certificates from.
func Open(pid int, workloads []netip.Prefix, except uint16) (*Tap, error) {
	type result struct {
		socket int
		err    error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, in another network, ends with the goroutine
		socket, err := listenIn(pid)
		made <- result{socket, err}
	}()
	r := <-made
	if r.err != nil {
		return nil, fmt.Errorf("listen on the node's network: %w", r.err)
	}
	return &Tap{r.socket, workloads, except}, nil
}

// room is for packets between two looks.
const room = 32 << 20

// listenIn opens a socket in the network of a process, where the calling thread
// stays. It gets the IPv4 packets that come in: each that a pod or a host sends
// does so once, by the sender's interface.
func listenIn(pid int) (int, error) {
	network, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return 0, err
	}
	defer network.Close()
	if err := unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err != nil {
		return 0, err
	}
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(networkOrder(unix.ETH_P_IP)))
	if err != nil {
		return 0, err
	}
	return socket, unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room)
}

func networkOrder(n uint16) uint16 { return n<<8 | n>>8 }

// Close ends it.
func (t *Tap) Close() error { return unix.Close(t.socket) }

// Forget drops what was heard so far.
func (t *Tap) Forget() error {
	_, err := t.Look("")
	return err
}

// Look tells what was heard since the last look, of a call to a host by its name.
// Of what is said it knows one of some words.
func (t *Tap) Look(host string, words ...string) (Sight, error) {
	buffer := make([]byte, 1<<16)
	var said, mesh bool
	for {
		n, from, err := unix.Recvfrom(t.socket, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return sight(said, mesh), nil
		}
		if err != nil {
			return Anything, fmt.Errorf("read packets: %w", err)
		}
		link, is := from.(*unix.SockaddrLinklayer)
		if !is || link.Hatype == unix.ARPHRD_LOOPBACK {
			continue // the node's own programs talk there, kubelet to containerd of what curl prints
		}
		p := parse(buffer[:n])
		for _, word := range words {
			said = said || bytes.Contains(p.text, []byte(word))
		}
		mesh = mesh || t.counts(p) && isHello(p.text) && !names(p.text, host)
	}
}

func sight(said, mesh bool) Sight {
	switch {
	case said && mesh:
		return Both
	case said:
		return Plain
	case mesh:
		return MutualTLS
	}
	return OwnTLS
}

// packet is one of TCP.
type packet struct {
	from netip.Addr
	port uint16 // that it goes to
	text []byte
}

// parse reads a packet of IPv4 (RFC 791 3.1) that carries TCP (RFC 9293 3.1); any
// other is the zero packet.
func parse(raw []byte) packet {
	const leastIP, leastTCP, protocol, source, offset = 20, 20, 9, 12, 12
	if len(raw) < leastIP || raw[0]>>4 != 4 || raw[protocol] != unix.IPPROTO_TCP {
		return packet{}
	}
	head := int(raw[0]&15) * 4
	if head < leastIP || len(raw) < head+leastTCP {
		return packet{}
	}
	segment := raw[head:]
	data := int(segment[offset]>>4) * 4
	if data < leastTCP || data > len(segment) {
		return packet{}
	}
	return packet{netip.AddrFrom4([4]byte(raw[source:])), binary.BigEndian.Uint16(segment[2:]), segment[data:]}
}

func (t *Tap) counts(p packet) bool {
	return p.port != t.except && slices.ContainsFunc(t.workloads, func(of netip.Prefix) bool { return of.Contains(p.from) })
}

// isHello tells whether a segment begins with a ClientHello (RFC 8446 4.1.2).
func isHello(text []byte) bool {
	const handshake, clientHello, kind = 22, 1, 5
	return len(text) > kind && text[0] == handshake && text[kind] == clientHello
}

// names tells whether a ClientHello is for a server of just this name, as a
// program itself writes it (RFC 6066 3).
func names(hello []byte, host string) bool {
	return bytes.Contains(hello, append([]byte{0, 0, byte(len(host))}, host...))
}
