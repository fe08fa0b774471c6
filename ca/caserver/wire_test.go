package caserver

import (
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// fields are the fields of files, by message and name: kind and number.
func fields(files ...protoreflect.FileDescriptor) map[string]string {
	all := map[string]string{}
	for _, file := range files {
		for i := range file.Messages().Len() {
			message := file.Messages().Get(i)
			for j := range message.Fields().Len() {
				f := message.Fields().Get(j)
				all[string(message.Name())+"."+string(f.Name())] = fmt.Sprint(f.Kind(), " ", f.Number())
			}
		}
	}
	return all
}
