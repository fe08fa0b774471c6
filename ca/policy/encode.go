package policy

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// Encode writes an object as JSON that Decode reads to the same object, in the
// newest apiVersion of its kind. What Decode does not keep of an object is not
// in it: it is for a resolver elsewhere, not to be applied in place of the
// object. A MeshConfig is the ConfigMap that holds it.
func Encode(o Object) ([]byte, error) {
	text, err := json.Marshal(fieldsOf(o))
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", o.Ref(), err)
	}
	return text, nil
}

// Fields is what Encode writes, as maps, lists, strings, numbers and booleans;
// of a MeshConfig, the keys of the mesh config alone. They are the caller's.
func Fields(o Object) map[string]any {
	fields, _ := encode(reflect.ValueOf(o).Elem()).(map[string]any)
	if i := slices.IndexFunc(kinds, func(k decodable) bool { return k.kind == o.Ref().Kind.String() }); i >= 0 {
		fields["kind"], fields["apiVersion"] = kinds[i].kind, kinds[i].versions[len(kinds[i].versions)-1]
	}
	return fields
}

func fieldsOf(o Object) map[string]any {
	fields := Fields(o)
	config, is := o.(*MeshConfig)
	if !is {
		return fields
	}
	meta := map[string]any{"name": meshConfigMap}
	if config.Namespace != "" {
		meta["namespace"] = config.Namespace
	}
	mesh, _ := json.Marshal(fields) // of maps with keys of text: it cannot fail
	return map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta,
		"data": map[string]any{meshKey: string(mesh)}}
}

// encode is the inverse of strict.into: it goes by the same tags. What is zero
// is left out of structs; a map or list that is there and empty is not.
func encode(v reflect.Value) any {
	switch value := v.Interface().(type) {
	case time.Time:
		return value.UTC().Format(time.RFC3339Nano)
	case TargetPort:
		if value.Name == "" {
			return value.Number
		}
		return value.Name
	}
	if word, is := v.Addr().Interface().(wordParser); is {
		return wordOf(word, v)
	}
	switch v.Kind() {
	case reflect.Pointer:
		return encode(v.Elem())
	case reflect.Struct:
		fields := map[string]any{}
		encodeInto(fields, v)
		return fields
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = encode(v.Index(i))
		}
		return list
	case reflect.Map:
		table := make(map[string]any, v.Len())
		for entries := v.MapRange(); entries.Next(); {
			value := reflect.New(v.Type().Elem()).Elem() // addressable
			value.Set(entries.Value())
			table[keyText(entries.Key())] = encode(value)
		}
		return table
	}
	return v.Interface()
}

func encodeInto(fields map[string]any, v reflect.Value) {
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("yaml")
		switch {
		case name == ",inline":
			encodeInto(fields, v.Field(i))
		case name != "" && !v.Field(i).IsZero():
			fields[name] = encode(v.Field(i))
		}
	}
}

// wordOf is the word that an enum reads as its value; empty for a value that has
// none.
func wordOf(enum wordParser, v reflect.Value) string {
	for _, text := range enum.words() {
		fresh := reflect.New(v.Type())
		if fresh.Interface().(wordParser).parse(text) && fresh.Elem().Equal(v) {
			return text
		}
	}
	return ""
}

func keyText(key reflect.Value) string {
	if key.Kind() == reflect.Uint32 {
		return strconv.FormatUint(key.Uint(), 10)
	}
	return key.String()
}
