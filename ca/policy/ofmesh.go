package policy

import "fmt"

// OfMesh returns the objects without the mesh configs of other meshes: a
// ConfigMap istio counts in the mesh's own namespace alone, or where its
// namespace is not said. ignored has a sentence for each that does not. Two that
// count are an error.
func OfMesh(namespace string, objects []Object) (kept []Object, ignored []string, err error) {
	for _, o := range objects {
		config, is := o.(*MeshConfig)
		switch {
		case is && config.Namespace != "" && config.Namespace != namespace:
			ignored = append(ignored, fmt.Sprintf("ConfigMap %s/%s is ignored: the mesh config of this mesh is in namespace %s", config.Namespace, meshConfigMap, namespace))
			continue
		case is && err == nil && hasMeshConfig(kept):
			err = fmt.Errorf("ConfigMap %s/%s is there twice: leave one of them", namespace, meshConfigMap)
		}
		kept = append(kept, o)
	}
	return kept, ignored, err
}

func hasMeshConfig(objects []Object) bool {
	for _, o := range objects {
		if _, is := o.(*MeshConfig); is {
			return true
		}
	}
	return false
}
