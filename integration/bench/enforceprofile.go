package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// isLookUp tells whether a function finds out what policy says.
func isLookUp(function, file string) bool {
	return strings.HasPrefix(function, "citadel/ca/policy.") || strings.HasSuffix(file, "nodeagent/enforce/plan.go")
}

// shareOf is the share of a CPU profile's samples in which a function that is
// meant was running, or had called what was. The profile is of the form of
// https://github.com/google/pprof/blob/main/proto/profile.proto
func shareOf(zipped []byte, meant func(function, file string) bool) (share float64, samples int64, err error) {
	unzip, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		return 0, 0, err
	}
	text, err := io.ReadAll(unzip)
	if err != nil {
		return 0, 0, err
	}
	p := cpuProfile{functions: map[uint64][2]uint64{}, locations: map[uint64][]uint64{}}
	if err := fields(text, p.take); err != nil {
		return 0, 0, err
	}
	var found int64
	for _, s := range p.samples {
		samples += s.count
		if p.has(s, meant) {
			found += s.count
		}
	}
	if samples == 0 {
		return 0, 0, errors.New("the profile has no samples")
	}
	return float64(found) / float64(samples), samples, nil
}

// cpuProfile is what is read of one.
type cpuProfile struct {
	texts     []string
	functions map[uint64][2]uint64 // name and file, of texts
	locations map[uint64][]uint64  // functions
	samples   []cpuSample
}

type cpuSample struct {
	locations []uint64
	count     int64
}

func (p *cpuProfile) has(s cpuSample, meant func(function, file string) bool) bool {
	for _, location := range s.locations {
		for _, id := range p.locations[location] {
			if f := p.functions[id]; meant(p.texts[f[0]], p.texts[f[1]]) {
				return true
			}
		}
	}
	return false
}

// take reads one field of a Profile.
func (p *cpuProfile) take(field protowire.Number, _ uint64, text []byte) error {
	switch field {
	case 2:
		return p.sample(text)
	case 4:
		return p.location(text)
	case 5:
		return p.function(text)
	case 6:
		p.texts = append(p.texts, string(text))
	}
	return nil
}

// sample reads a Sample, whose first value is how often it was seen.
func (p *cpuProfile) sample(text []byte) error {
	var s cpuSample
	var values []uint64
	err := fields(text, func(field protowire.Number, n uint64, list []byte) error {
		switch field {
		case 1:
			s.locations = append(s.locations, numbers(n, list)...)
		case 2:
			values = append(values, numbers(n, list)...)
		}
		return nil
	})
	if len(values) > 0 {
		s.count = int64(values[0])
	}
	p.samples = append(p.samples, s)
	return err
}

// function reads a Function.
func (p *cpuProfile) function(text []byte) error {
	var id uint64
	var f [2]uint64
	err := fields(text, func(field protowire.Number, n uint64, _ []byte) error {
		switch field {
		case 1:
			id = n
		case 2:
			f[0] = n
		case 4:
			f[1] = n
		}
		return nil
	})
	p.functions[id] = f
	return err
}

// location reads a Location: functions that were inlined into another are lines
// of their own.
func (p *cpuProfile) location(text []byte) error {
	var id uint64
	var functions []uint64
	err := fields(text, func(field protowire.Number, n uint64, line []byte) error {
		switch field {
		case 1:
			id = n
		case 4:
			return fields(line, func(field protowire.Number, n uint64, _ []byte) error {
				if field == 1 {
					functions = append(functions, n)
				}
				return nil
			})
		}
		return nil
	})
	p.locations[id] = functions
	return err
}

// numbers is a repeated number: one, or a packed list.
func numbers(n uint64, list []byte) (all []uint64) {
	if list == nil {
		return []uint64{n}
	}
	for len(list) > 0 {
		n, size := protowire.ConsumeVarint(list)
		if size < 0 {
			return all
		}
		all, list = append(all, n), list[size:]
	}
	return all
}

// fields reads a message: each field is a number, or text.
func fields(message []byte, take func(field protowire.Number, n uint64, text []byte) error) error {
	for len(message) > 0 {
		field, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return protowire.ParseError(size)
		}
		message = message[size:]
		var n uint64
		var text []byte
		switch kind {
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			text, size = protowire.ConsumeBytes(message)
		default:
			size = protowire.ConsumeFieldValue(field, kind, message)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := take(field, n, text); err != nil {
			return err
		}
		message = message[size:]
	}
	return nil
}
