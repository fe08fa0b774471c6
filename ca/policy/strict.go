package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// visits is how many nodes may be looked at for one input, aliases counted each
// time: what a bomb needs is far above, what a person writes far below.
const visits = 8 << 20

// complaints is how many problems of one input are worth telling.
const complaints = 1000

// wordParser is an enum that reads its word.
type wordParser interface {
	parse(text string) bool
	words() []string
}

// strict fills Go values from YAML nodes and complains of all that has no place
// in them. A field is named by the tag yaml; the tag ignored of a blank field
// lists those that are known and not read; the tag null:"present" makes of null
// an empty value; the tag words narrows an enum.
type strict struct {
	file, object string
	left         int  // visits
	live         bool // unknown keys at the top do not matter
	unknown      []UnknownKey
	lines        map[string]int
	problems     []Problem
	fields       map[reflect.Type]map[string]reflect.StructField
}

func newStrict(file string) *strict {
	return &strict{file: file, left: visits, lines: map[string]int{}, fields: map[reflect.Type]map[string]reflect.StructField{}}
}

func (s *strict) fail(n *yaml.Node, path, format string, args ...any) {
	if len(s.problems) == complaints {
		s.left = -2 // the rest is not read
		return
	}
	s.problems = append(s.problems, Problem{File: s.file, Line: n.Line, Object: s.object, Field: path, Message: fmt.Sprintf(format, args...)})
}

// follow returns the node that an alias stands for, and false when there is
// nothing to read: too much was read, or it is null.
func (s *strict) follow(n *yaml.Node, path string) (*yaml.Node, bool) {
	for {
		if s.left--; s.left < 0 {
			if s.left == -1 {
				s.fail(n, path, "aliases expand to more than %d nodes", visits)
			}
			return n, false
		}
		if n.Kind != yaml.AliasNode || n.Alias == nil {
			return n, n.Tag != "!!null"
		}
		n = n.Alias
	}
}

func (s *strict) into(n *yaml.Node, path string, v reflect.Value) {
	n, some := s.follow(n, path)
	if !some {
		return
	}
	s.lines[path] = n.Line
	switch target := v.Addr().Interface().(type) {
	case wordParser:
		s.word(n, path, target)
	case *time.Time:
		s.time(n, path, target)
	case *TargetPort:
		s.targetPort(n, path, target)
	case *Opaque:
		s.is(n, path, yaml.MappingNode)
	case *yaml.Node:
		*target = *n
	default:
		s.value(n, path, v)
	}
}

func (s *strict) value(n *yaml.Node, path string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		v.Set(fresh)
		s.into(n, path, fresh.Elem())
	case reflect.Struct:
		s.structure(n, path, v)
	case reflect.Slice:
		s.slice(n, path, v)
	case reflect.Map:
		s.table(n, path, v)
	case reflect.String:
		if s.is(n, path, yaml.ScalarNode) {
			if n.Tag != "!!str" && n.Tag != "!!timestamp" {
				s.fail(n, path, "%q must be a string: put it in quotes", n.Value)
			}
			v.SetString(n.Value)
		}
	case reflect.Bool:
		if s.is(n, path, yaml.ScalarNode) {
			b, err := strconv.ParseBool(n.Value)
			if err != nil || n.Tag != "!!bool" {
				s.fail(n, path, "%q must be true or false", n.Value)
			}
			v.SetBool(b)
		}
	case reflect.Int, reflect.Int32, reflect.Uint32:
		s.number(n, path, v)
	default:
		s.fail(n, path, "has no place")
	}
}

func (s *strict) number(n *yaml.Node, path string, v reflect.Value) {
	if !s.is(n, path, yaml.ScalarNode) {
		return
	}
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil || n.Tag != "!!int" {
		s.fail(n, path, "%q must be a whole number", n.Value)
		return
	}
	if i < 0 || i > 1<<31-1 {
		s.fail(n, path, "%s is out of range: a port must be in range 1..65535", n.Value)
		return
	}
	if v.Kind() == reflect.Uint32 {
		v.SetUint(uint64(i))
	} else {
		v.SetInt(i)
	}
}

// is complains of a node of another kind.
func (s *strict) is(n *yaml.Node, path string, kind yaml.Kind) bool {
	names := map[yaml.Kind]string{yaml.MappingNode: "a map", yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}
	if n.Kind != kind {
		s.fail(n, path, "must be %s", names[kind])
		return false
	}
	return true
}

// pairs calls f for each key and value of a map, once for each key.
func (s *strict) pairs(n *yaml.Node, path string, f func(key, value *yaml.Node)) {
	if !s.is(n, path, yaml.MappingNode) {
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, _ := s.follow(n.Content[i], path)
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag == "!!merge":
			s.fail(key, path, "a key must be a single value, and merge keys are not read")
		case seen[key.Value]:
			s.fail(key, path, "field %q is given twice", key.Value)
		default:
			seen[key.Value] = true
			f(key, n.Content[i+1])
		}
	}
}

func (s *strict) structure(n *yaml.Node, path string, v reflect.Value) {
	fields := s.fieldsOf(v.Type())
	s.pairs(n, path, func(key, value *yaml.Node) {
		field, known := fields[key.Value]
		switch {
		case !known && s.live && path == "":
			if like := s.unknownKey(fields, key.Value); like != "" {
				s.fail(key, key.Value, "unknown field %q: the field is called %q", key.Value, like)
			}
		case !known:
			s.fail(key, below(path, key.Value), "unknown field %q", key.Value)
		case field.Name != "_":
			at := below(path, key.Value)
			target := v.FieldByIndex(field.Index)
			if resolved, some := s.follow(value, at); !some && field.Tag.Get("null") == "present" {
				s.lines[at] = resolved.Line
				target.Set(reflect.New(target.Type().Elem()))
				return
			}
			s.into(value, at, target)
			s.narrow(value, at, field.Tag.Get("words"))
		}
	})
}

// narrow refuses words of an enum that this field does not have.
func (s *strict) narrow(n *yaml.Node, path, words string) {
	if n, some := s.follow(n, path); words != "" && some && n.Value == "UNSET" && !slices.Contains(strings.Fields(words), n.Value) {
		s.failWord(n, path, strings.Fields(words))
	}
}

// fieldsOf maps names to the fields of a type, those of embedded types included.
func (s *strict) fieldsOf(t reflect.Type) map[string]reflect.StructField {
	if fields, known := s.fields[t]; known {
		return fields
	}
	fields := map[string]reflect.StructField{}
	for i := range t.NumField() {
		field := t.Field(i)
		if name := field.Tag.Get("yaml"); name == ",inline" {
			for name, inner := range s.fieldsOf(field.Type) {
				inner.Index = append(slices.Clone(field.Index), inner.Index...)
				fields[name] = inner
			}
		} else if name != "" {
			fields[name] = field
		}
		for name := range strings.FieldsSeq(field.Tag.Get("ignored")) {
			fields[name] = field
		}
	}
	s.fields[t] = fields
	return fields
}

func (s *strict) slice(n *yaml.Node, path string, v reflect.Value) {
	if !s.is(n, path, yaml.SequenceNode) {
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, min(len(n.Content), s.left+1)))
	for i, item := range n.Content {
		if s.left < 0 {
			return
		}
		fresh := reflect.New(v.Type().Elem()).Elem()
		s.into(item, fmt.Sprintf("%s[%d]", path, i), fresh)
		v.Set(reflect.Append(v, fresh))
	}
}

func (s *strict) table(n *yaml.Node, path string, v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	s.pairs(n, path, func(key, value *yaml.Node) {
		k := reflect.New(v.Type().Key()).Elem()
		if k.Kind() == reflect.Uint32 {
			number, err := strconv.ParseUint(key.Value, 10, 32)
			if err != nil || strconv.FormatUint(number, 10) != key.Value {
				s.fail(key, path, "key %q must be a number: port must be in range 1..65535", key.Value)
				return
			}
			k.SetUint(number)
		} else {
			k.SetString(key.Value)
		}
		fresh := reflect.New(v.Type().Elem()).Elem()
		s.into(value, below(path, key.Value), fresh)
		v.SetMapIndex(k, fresh)
	})
}

func (s *strict) word(n *yaml.Node, path string, target wordParser) {
	if s.is(n, path, yaml.ScalarNode) && (n.Tag != "!!str" || !target.parse(n.Value)) {
		s.failWord(n, path, target.words())
	}
}

// failWord says it in the words of both the old decoders and today's schemas.
func (s *strict) failWord(n *yaml.Node, path string, words []string) {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	message := fmt.Sprintf("unknown value %q: Unsupported value: %q: supported values: %s", n.Value, n.Value, strings.Join(quoted, ", "))
	if strings.HasSuffix(path, "authPolicy") {
		message = "unrecognized auth policy: " + message
	}
	s.fail(n, path, "%s", message)
}

func (s *strict) time(n *yaml.Node, path string, target *time.Time) {
	t, err := time.Parse(time.RFC3339, n.Value)
	if err != nil {
		s.fail(n, path, "%q must be a time like 2006-01-02T15:04:05Z", n.Value)
	}
	*target = t.UTC()
}

func (s *strict) targetPort(n *yaml.Node, path string, target *TargetPort) {
	if !s.is(n, path, yaml.ScalarNode) {
		return
	}
	if n.Tag == "!!str" {
		target.Name = n.Value
		return
	}
	s.number(n, path, reflect.ValueOf(&target.Number).Elem())
}

func below(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
