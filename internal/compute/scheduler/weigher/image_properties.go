package weigher

import "kilonova/internal/compute/scheduler"

// imageProperties prefers hosts whose servers come from images with the same properties, each property with its weight of
// image_props_weight_setting (all with 1 when that is empty).
func imageProperties() scheduler.Weigher {
	return scheduler.Weigher{
		Multiplier: func(c *scheduler.Config) float64 { return c.ImagePropsMultiplier },
		Key:        "image_props_weight_multiplier",
		Compile: func(c *scheduler.Config, r *scheduler.Request) func(*scheduler.HostState) float64 {
			if len(r.Image.Props) == 0 {
				return nil
			}
			return func(h *scheduler.HostState) float64 {
				sum := 0.0
				for _, s := range h.Servers {
					for name, want := range r.Image.Props {
						if s.ImageProps[name] == want {
							sum += weight(c, name)
						}
					}
				}
				return sum
			}
		},
	}
}

func weight(c *scheduler.Config, name string) float64 {
	if len(c.ImagePropsSetting) == 0 {
		return 1
	}
	return c.ImagePropsSetting[name]
}
