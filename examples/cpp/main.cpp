// Denoises with an artifact, without Python:
//
//   denoise ARTIFACT INPUTS.safetensors OUTPUT.safetensors [DEVICE]
//
// INPUTS holds `timesteps`, with one row a step; `sample`, the latent at the start; and the further
// arguments of the model as `argument_2`, `argument_3` and so on. Each step subtracts 0.1 times the
// prediction, which stands for the sampler of your own. OUTPUT receives the latent after each step.
#include <iostream>

#include "fxcache.hpp"

namespace {

void denoise(const std::string& folder, const std::string& inputs, const std::string& output, c10::Device device) {
  fxcache::Artifact artifact(folder, device);
  auto given = fxcache::read_tensors(fxcache::read_file(inputs), inputs);
  for (auto& [name, tensor] : given) tensor = tensor.to(device);
  const at::Tensor timesteps = given.at("timesteps");
  at::Tensor latent = given.at("sample");
  fxcache::Run run(artifact, static_cast<std::size_t>(timesteps.size(0)));
  std::map<std::string, at::Tensor> latents;
  for (std::int64_t step = 0; step < timesteps.size(0); ++step) {
    std::vector<at::Tensor> arguments = {latent, timesteps[step]};
    for (int i = 2; given.count("argument_" + std::to_string(i)); ++i)
      arguments.push_back(given.at("argument_" + std::to_string(i)));
    latent = latent.sub(run.step(arguments).at(0), 0.1);
    latents["latent_" + std::to_string(step)] = latent;
  }
  fxcache::write_tensors(output, latents);
  std::cout << "denoised " << timesteps.size(0) << " steps\n";
}

}  // namespace

int main(int count, char** values) {
  if (count < 4 || count > 5) {
    std::cerr << "usage: denoise ARTIFACT INPUTS.safetensors OUTPUT.safetensors [DEVICE]\n";
    return 2;
  }
  try {
    denoise(values[1], values[2], values[3], c10::Device(count == 5 ? values[4] : "cpu"));
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
