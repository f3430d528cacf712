"""What llama.cpp prints while it loads a model, as the supervisor reads it.

``ON_PROCESSOR`` was recorded (xllamacpp 2026.10.11549, ``-lv 4 -ngl 20 -c 2048 -np 2``, the demo model); the lines
about cards are composed by llama.cpp's own formats: common/common.cpp (``common_params_print_info``),
src/llama-model.cpp (``load_tensors``), src/llama-kv-cache.cpp, src/llama-context.cpp (``sched_reserve``).
"""

from __future__ import annotations

ON_PROCESSOR = """\
0.00.000.753 I srv          init: initializing ...
0.00.000.772 I cmn  common_param: device_info:
0.00.000.781 I cmn  common_param:   - CPU     : AMD EPYC (24105 MiB, 24105 MiB free)
0.00.003.100 I srv    load_model: loading model '/models/SmolLM2-135M-Instruct.Q4_1.gguf'
0.00.003.287 I cmn  common_init_: fitting params to device memory ...
0.00.175.763 I common_memory_breakdown_print: | memory breakdown [MiB] | total   free    self   model   context
0.00.191.378 I common_fit_params: fitting params to free memory took 0.19 seconds
0.00.203.690 I llama_model_loader: - kv   0:                       general.architecture str              = llama
0.00.318.730 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
0.00.328.182 I load_tensors:   CPU_Mapped model buffer size =    92.10 MiB
0.00.330.713 I llama_context: n_ctx                 = 2048
0.00.330.713 I llama_context: n_ctx_seq             = 1024
0.00.330.716 I llama_context: kv_unified            = false
0.00.330.719 I llama_context: n_ctx_seq (1024) < n_ctx_train (8192) -- the full capacity of the model will not be
0.00.330.744 I llama_context:        CPU  output buffer size =     0.38 MiB
0.00.330.829 I llama_kv_cache:        CPU KV buffer size =    45.00 MiB
0.00.360.631 I sched_reserve:        CPU compute buffer size =     1.96 MiB
0.00.447.784 I srv    load_model: initializing, n_slots = 2, n_ctx_slot = 1024, kv_unified = 'false'
0.00.447.811 I slot   load_model: id  0 | task -1 | new slot, n_ctx = 1024
0.00.449.632 I srv          init: listening on http://127.0.0.1:18774
"""
# The fit tries a load with all layers first; a draft model comes after the model.
ON_ONE_CARD = """\
0.00.000.781 I cmn  common_param:   - CUDA0   : NVIDIA GeForce RTX 3050 (8191 MiB, 7123 MiB free)
0.00.000.782 I cmn  common_param:   - CPU     : AMD Ryzen 5 (32000 MiB, 30000 MiB free)
0.00.003.287 I cmn  common_init_: fitting params to device memory ...
0.00.100.000 I load_tensors: offloaded 33/33 layers to GPU
0.00.100.001 I load_tensors:        CUDA0 model buffer size =  9999.00 MiB
0.00.100.002 I llama_context: n_ctx                 = 131072
0.00.191.378 I common_fit_params: fitting params to free memory took 0.19 seconds
0.00.318.730 I load_tensors: offloading output layer to GPU
0.00.318.731 I load_tensors: offloaded 20/33 layers to GPU
0.00.318.732 I load_tensors:   CPU_Mapped model buffer size =  1500.00 MiB
0.00.318.733 I load_tensors:        CUDA0 model buffer size =  2560.50 MiB
0.00.330.713 I llama_context: n_ctx                 = 32768
0.00.330.744 I llama_context:  CUDA_Host  output buffer size =     0.50 MiB
0.00.330.829 I llama_kv_cache:        CPU KV buffer size =   100.00 MiB
0.00.330.830 I llama_kv_cache:      CUDA0 KV buffer size =   200.00 MiB
0.00.360.631 I sched_reserve:      CUDA0 compute buffer size =   100.00 MiB
0.00.360.632 I sched_reserve:  CUDA_Host compute buffer size =    20.00 MiB
0.00.418.731 I load_tensors: offloaded 5/5 layers to GPU
0.00.418.733 I load_tensors:        CUDA0 model buffer size =   100.00 MiB
0.00.430.713 I llama_context: n_ctx                 = 4096
0.00.447.784 I srv    load_model: initializing, n_slots = 4, n_ctx_slot = 32768, kv_unified = 'true'
"""
# A worker of ggml-rpc-server beside a card, and no layer on the processor.
ON_TWO_DEVICES = """\
0.00.000.781 I cmn  common_param:   - RPC0    : 10.0.0.2:50052 (16000 MiB, 15000 MiB free)
0.00.000.781 I cmn  common_param:   - CUDA0   : NVIDIA GeForce RTX 3050 (8191 MiB, 7123 MiB free)
0.00.318.731 I load_tensors: offloaded 33/33 layers to GPU
0.00.318.732 I load_tensors:          CPU model buffer size =    70.00 MiB
0.00.318.733 I load_tensors: RPC0[10.0.0.2:50052] model buffer size =  3000.00 MiB
0.00.318.733 I load_tensors:        CUDA0 model buffer size =  1000.00 MiB
0.00.330.713 I llama_context: n_ctx                 = 8192
0.00.447.784 I srv    load_model: initializing, n_slots = 4, n_ctx_slot = 2048, kv_unified = 'false'
"""
# With -ngl 0 a build for cards still computes long prompts on one.
ROOM_ON_A_CARD = """\
0.00.000.781 I cmn  common_param:   - CUDA0   : NVIDIA GeForce RTX 3050 (8191 MiB, 7123 MiB free)
0.00.318.731 I load_tensors: offloaded 0/33 layers to GPU
0.00.318.732 I load_tensors:   CPU_Mapped model buffer size =  4000.00 MiB
0.00.318.733 I sched_reserve:      CUDA0 compute buffer size =   300.00 MiB
"""
# A build of the year 2025, which prints no time and no level.
OF_AN_OLDER_BUILD = """\
llama_model_load_from_file_impl: using device CUDA0 (NVIDIA GeForce RTX 3050) (0000:01:00.0) - 7123 MiB free
load_tensors: offloaded 33/33 layers to GPU
load_tensors:        CUDA0 model buffer size =  4095.00 MiB
load_tensors:   CPU_Mapped model buffer size =    70.00 MiB
llama_context: n_ctx         = 8192
llama_kv_cache:      CUDA0 KV buffer size =  1024.00 MiB
llama_context:      CUDA0 compute buffer size =   300.00 MiB
slot         init: id  0 | task -1 | new slot n_ctx_slot = 2048
"""
# Recorded after the load, of one request: with verbosity 4, and those of them that verbosity 3 prints too.
TRACES = """\
0.00.996.237 I srv  server_strea: conv_id= (empty=1)
0.00.996.859 I slot get_availabl: id  0 | task -1 |  - skipping, slot is empty
0.00.996.880 I srv  get_availabl: updating prompt cache
0.00.996.888 I srv          load:  - looking for better prompt, base f_keep = -1.000, f_sim = 0.000
0.00.996.892 I srv        update:  - cache state: 0 prompts, 0.000 MiB (limits: 8192.000 MiB, 2048 tokens)
0.00.996.893 I srv  get_availabl: prompt cache update took 0.01 ms
0.00.997.085 I slot launch_slot_: id  1 | task -1 | sampler chain: logits -> ?penalties -> dist
0.00.997.105 I slot launch_slot_: id  1 | task -1 | sampler params:
\trepeat_last_n = 64, repeat_penalty = 1.000, frequency_penalty = 0.000, presence_penalty = 0.000
\tdry_multiplier = 0.000, dry_base = 1.750, dry_allowed_length = 2, dry_penalty_last_n = 64
\ttop_k = 40, top_p = 0.950, min_p = 0.050, xtc_probability = 0.000, xtc_threshold = 0.100, typical_p = 1.000
\tmirostat = 0, mirostat_lr = 0.100, mirostat_ent = 5.000, adaptive_target = -1.000, adaptive_decay = 0.900
0.00.997.107 I slot process_sing: id  0 | task -1 | saving idle slot to prompt cache
0.00.997.118 I slot   operator(): id  1 | task 0 | new prompt, n_ctx_slot = 1024, n_keep = 0, task.n_tokens = 31
0.00.997.122 I slot   operator(): id  1 | task 0 | cached n_tokens = 0, memory_seq_rm [0, end)
0.00.997.135 I slot init_sampler: id  1 | task 0 | init sampler, took 0.01 ms, tokens: text = 31, total = 31
0.05.311.908 I srv  update_slots: all slots are idle
"""
OF_A_REQUEST = """\
0.09.965.444 I slot get_availabl: id  1 | task -1 | selected slot by LRU, t_last = -1
0.09.965.679 I slot launch_slot_: id  1 | task 0 | processing task, is_child = 0
0.13.740.189 I slot print_timing: id  1 | task 0 | prompt eval time =    2811.64 ms /    31 tokens
0.13.740.266 I slot print_timing: id  1 | task 0 |    graphs reused =          7
0.13.743.113 I slot      release: id  1 | task 0 | stop processing: n_tokens = 38, truncated = 0
"""
